#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The generator reads protos and rules as they are written, and says what the
page says of some keys of each kind."""
import importlib.machinery
import importlib.util
import json
import pathlib
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import job_keys
import job_schema

loader = importlib.machinery.SourceFileLoader("gen_docs", str(ROOT / "tools/gen_docs"))
gen_docs = importlib.util.module_from_spec(importlib.util.spec_from_loader("gen_docs", loader))
loader.exec_module(gen_docs)

PROTO = """
// Head.
message Batch {
  // How many. Unset (0): 16.
  int32 size = 1;
  // Exactly one.
  oneof kind {
    Empty none = 2;
    // Both.
    string both = 3;
  }
}
message Empty {}
enum OnNan {
  ON_NAN_UNSPECIFIED = 0;  // The same as STOP.
  ON_NAN_STOP = 1;
}
"""

RULES = """
void Validator::Job() {
  InRange<int64_t>(x(), 1, int64_t{1} << 20, "batch.size");
  Require(!x.empty(), "name", "name: a, b");
  NotYet(x != 1 || y(2, 3), "batch." "kind", "write stop, or (go)");
  NotYet(!absl::StartsWith(p, "artifact:"), path + ".path", "name a file");
}
"""


class GenDocsTest(unittest.TestCase):
    def test_protos_are_read(self):
        messages, enums, comments = job_keys.read_proto(PROTO)
        size, none, both = messages["Batch"]
        self.assertEqual((size.name, size.comment), ("size", "How many. Unset (0): 16."))
        self.assertEqual((none.oneof, none.oneof_comment, none.comment), ("kind", "Exactly one.", ""))
        self.assertEqual((both.oneof, both.comment), ("kind", "Both."))
        self.assertEqual(messages["Empty"], [])
        self.assertEqual(comments["Batch"], "Head.")
        self.assertEqual(job_keys.enum_words("OnNan", enums["OnNan"]), ["stop"])

    def test_rules_are_read(self):
        rules = job_keys.read_rules(RULES)
        self.assertEqual(rules["batch.size"].low_high, (1, 1 << 20))
        self.assertTrue(rules["name"].required)
        self.assertEqual(rules["batch.kind"].refused, [([], "write stop, or (go)")])
        self.assertEqual(rules["data.train[].path"].refused, [(["artifact:"], "name a file")])

    def test_the_page_has_keys_of_each_kind(self):
        rows = {}
        for line in gen_docs.Page(job_keys.JobKeys()).text().splitlines():
            if line.startswith("| `"):
                key, *cells = line.strip("| ").split(" | ")
                rows[key.strip("`")] = cells
        self.assertEqual(rows["schedule.learning_rate"][1], "`1e-4`")
        self.assertEqual(rows["model.base"][1], "**required**")
        self.assertEqual(rows["adaptation.lora.targets"][0], "list: text")
        self.assertEqual(rows["batch.sequences"][1], "`16`")
        self.assertNotIn("data.train[].sha256", rows)
        for key, said in {
            "stage.dpo.beta": "*Not yet:*",
            "precision": "*For now only*",
            "data.cutoff_len": "8 to 1,048,576",
            "resources.ranks": "In [1, 4,096].",
        }.items():
            self.assertIn(said, rows[key][2], key)

    def test_the_schema_says_types_ranges_words_and_what_is_required(self):
        schema = json.loads(job_schema.schema_text(job_keys.JobKeys()))
        self.assertIn("model", schema["required"])
        self.assertNotIn("batch", schema["required"])
        self.assertFalse(schema["additionalProperties"])
        batch = schema["properties"]["batch"]["anyOf"][0]["properties"]
        self.assertEqual(batch["sequences"]["anyOf"][0]["exclusiveMinimum"], 0)
        self.assertIn({"enum": ["auto"]}, batch["micro"]["anyOf"])
        stage = schema["properties"]["stage"]["anyOf"]
        self.assertIn("sft", stage[0]["enum"])
        self.assertIn({"not": {"required": ["sft", "dpo"]}}, stage[1]["allOf"])


if __name__ == "__main__":
    unittest.main()
