#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The largest files and functions, as a report: a place to look, no verdict."""
import pathlib
import re
import subprocess

FUNCTION = re.compile(r"^(?:[A-Za-z_].*\)|.*\) const|.*\) override)(?: const)?(?: override)? \{$")


def functions(path):
    """Name and length of what begins at column 0 or 2 and ends in a brace there."""
    begin, indent = None, ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if begin is None and FUNCTION.match(line.strip()) and len(line) - len(line.lstrip()) <= 2:
            begin, indent = number, line[: len(line) - len(line.lstrip())]
            name = line.strip()[:60]
        elif begin is not None and line == indent + "}":
            yield number - begin + 1, f"{path}:{begin} {name}"
            begin = None


def main():
    names = subprocess.run(
        ["git", "ls-files", "*.cc", "*.h", "*.rs", "*.py"], check=True, capture_output=True, text=True
    ).stdout.split()
    paths = [pathlib.Path(name) for name in names]
    print("largest files:")
    for lines, path in sorted(((len(p.read_text().splitlines()), p) for p in paths), reverse=True)[:8]:
        print(f"  {lines:5} {path}")
    print("largest functions:")
    found = [entry for p in paths if p.suffix in {".cc", ".h"} for entry in functions(p)]
    for lines, where in sorted(found, reverse=True)[:8]:
        print(f"  {lines:5} {where}")


if __name__ == "__main__":
    main()
