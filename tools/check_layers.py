#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom: checks every source against docs/layers.txt."""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#include "([a-z_0-9]+)/', re.MULTILINE)
OUTSIDE = {
    "+torch": re.compile(r"^\s*#include <(torch|ATen|c10)/", re.MULTILINE),
    "+cuda": re.compile(r"^\s*#include <(cuda|cublas|cub/|nccl)", re.MULTILINE),
    "+grpc": re.compile(r"^\s*#include (<grpc|.*\.grpc\.pb\.h)", re.MULTILINE),
}


def read_layers(path):
    layers = {}
    for line in path.read_text().splitlines():
        folder, colon, allowed = line.partition("#")[0].partition(":")
        if colon:
            layers[folder.strip()] = {folder.strip(), *allowed.split()}
    return layers


def used_by(source):
    text = source.read_text()
    folders = {"proto" if name == "ft" else name for name in INCLUDE.findall(text)}
    return folders | {word for word, seen in OUTSIDE.items() if seen.search(text)}


def faults(root):
    layers = read_layers(root / "docs/layers.txt")
    for folder, allowed in layers.items():
        for source in sorted((root / folder).rglob("*.*")):
            if source.suffix in {".h", ".cc", ".cu", ".cuh"}:
                for word in sorted(used_by(source) - allowed):
                    if word in layers or word in OUTSIDE:
                        yield f"{source.relative_to(root)}: may not include {word}"


if __name__ == "__main__":
    found = list(faults(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
    print("\n".join(found))
    sys.exit(1 if found else 0)
