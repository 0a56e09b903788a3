#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/job.schema.json takes every example and the README's job, and refuses
what an editor should mark."""
import copy
import json
import pathlib
import re
import sys

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/job.schema.json").read_text())
# What a user might write: a path of keys, and a value that does not belong.
WRONG = [
    (["adaptation", "lora", "rnak"], 8),
    (["adaptation", "lora", "rank"], "eight"),
    (["adaptation", "lora", "rank"], 0),
    (["adaptation", "lora", "rank"], 5000),
    (["priority"], 101),
    (["stage"], "stf"),
    (["stage"], {"sft": {}, "dpo": {}}),
    (["data", "over_cutoff"], "cut"),
    (["data", "train"], [{"path": "x.json", "format": "alpacca"}]),
    (["data", "train"], [{"format": "alpaca"}]),
    (["data", "validation"], {"path": "x.json", "share": 0.1}),
    (["checkpointing", "every"], {"steps": 1, "minutes": 1}),
    (["time_limit"], "12 hours"),
    (["resources", "ranks"], "two"),
    (["nmae"], "x"),
    (["name"], None),
    (["model"], None),
]
RIGHT = [
    (["batch", "micro"], "auto"),
    (["time_limit"], "12h"),
    (["resources", "ranks"], {"min": 1, "max": 2}),
    (["adaptation"], "lora"),
    (["optimizer"], "adamw"),
    (["data", "train"], {"path": "x.json", "format": "alpaca"}),
    (["export"], None),
]


def jobs():
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        yield path.name, yaml.safe_load(path.read_text())
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        yield "README.md", yaml.safe_load(block)


def replaced(job, keys, value):
    job = copy.deepcopy(job)
    at = job
    for key in keys[:-1]:
        if not isinstance(at.get(key), dict):
            at[key] = {}
        at = at[key]
    at[keys[-1]] = value
    return job


def main():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft7Validator(SCHEMA)
    faults = []
    for name, job in jobs():
        faults += [f"{name}: {error.message}" for error in validator.iter_errors(job)]
    for keys, value in RIGHT:
        if not validator.is_valid(replaced(job, keys, value)):
            faults.append(f"refused: {'.'.join(keys)}: {value}")
    for keys, value in WRONG:
        if validator.is_valid(replaced(job, keys, value)):
            faults.append(f"not refused: {'.'.join(keys)}: {value}")
    sys.exit("\n".join(faults) or 0)


if __name__ == "__main__":
    main()
