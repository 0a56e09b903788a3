#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The layer checker finds what it must, and nothing else."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import check_layers  # noqa: E402


class CheckLayersTest(unittest.TestCase):
    def faults(self, source):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name in ("docs", "low", "high"):
                (root / name).mkdir()
            (root / "docs/layers.txt").write_text("low:\nhigh: low +torch  # why\n")
            (root / "low/a.cc").write_text(source)
            (root / "high/b.h").write_text('#include "low/a.h"\n#include <ATen/x.h>\n')
            return list(check_layers.faults(root))

    def test_what_is_allowed_is_no_fault(self):
        self.assertEqual(self.faults('#include "low/a.h"\n#include <vector>\n'), [])

    def test_a_higher_folder_is_a_fault(self):
        self.assertEqual(self.faults('#include "high/b.h"\n'), ["low/a.cc: may not include high"])

    def test_an_outside_library_is_a_fault(self):
        self.assertEqual(self.faults("#include <torch/x.h>\n"), ["low/a.cc: may not include +torch"])
        self.assertEqual(self.faults('#include "ft/v1/a.grpc.pb.h"\n'), ["low/a.cc: may not include +grpc"])


if __name__ == "__main__":
    unittest.main()
