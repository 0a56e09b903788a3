#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ft-bench-step on a tiny model: every case takes its steps, the losses are
those of a model that learns, and what bench/*.py read is there.

  step_test.py FT_BENCH_STEP
"""
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/golden/models/tiny_chat"
FIELDS = {"cpu_s_per_1k_tokens", "tokens_per_s", "peak_rss_mib", "first_step_s", "phases_s"}
PROGRAM = sys.argv.pop(1)


def call(*words):
    command = [PROGRAM, *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


class StepTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        call("prepare", "--model", MODEL, "--data", ROOT / "bench/data", "--out", cls.folder.name)

    def steps(self, case):
        words = ["--model", MODEL, "--cases", self.folder.name, "--case", case]
        return json.loads(call("run", *words, "--warm", 1, "--steps", 1))

    def test_every_case_trains(self):
        shares = {}
        for case in (1, 2, 3):
            result = self.steps(case)
            self.assertLessEqual(FIELDS, result.keys())
            self.assertEqual(len(result["losses"]), 2)
            for loss in result["losses"]:
                self.assertTrue(math.isfinite(loss) and loss > 0, loss)
            self.assertGreater(result["cpu_s_per_1k_tokens"], 0)
            shares[case] = result["supervised_share"]
        self.assertEqual(shares[1], 127 / 128)
        self.assertAlmostEqual(shares[2], 0.3, delta=0.05)
        self.assertTrue(0.3 < shares[3] < 1, shares[3])

    def test_a_step_has_the_same_loss_twice(self):
        self.assertEqual(self.steps(2)["losses"], self.steps(2)["losses"])

    def test_a_missing_case_is_named(self):
        with tempfile.TemporaryDirectory() as empty:
            words = [PROGRAM, "run", "--model", MODEL, "--cases", empty, "--case", "2"]
            done = subprocess.run(
                list(map(str, words)), stderr=subprocess.PIPE, text=True, check=False
            )
        self.assertEqual(done.returncode, 1)
        self.assertIn("case2.safetensors", done.stderr)


if __name__ == "__main__":
    unittest.main()
