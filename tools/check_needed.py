#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the programs link: no gRPC or CUDA in ft-train, no torch or CUDA in the
others, and no program imports what unpickles.

    check_needed.py BIN_DIR
"""
import pathlib
import re
import subprocess
import sys

FORBIDDEN = {
    "ft-train": re.compile(r"grpc|cuda|nccl|cublas"),
    "ft-coordinator": re.compile(r"torch|c10|cuda|nccl"),
    "ft-worker": re.compile(r"torch|c10|cuda|nccl"),
    "ftctl": re.compile(r"torch|c10|cuda|nccl"),
}
# Symbols of libtorch's unpickler and of what calls it.
UNPICKLES = re.compile(r"torch3jit\w*(Unpickler|4load|pickle)|torch4load")


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def faults(folder):
    for name, forbidden in FORBIDDEN.items():
        program = folder / name
        if not program.exists():
            yield f"{name}: not built"
            continue
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", output_of("readelf", "-d", program))
        if not needed:
            yield f"{name}: no NEEDED entries; is it a dynamic program?"
        for library in needed:
            if forbidden.search(library):
                yield f"{name}: may not link {library}"
        for line in output_of("nm", "-D", "--undefined-only", program).splitlines():
            if UNPICKLES.search(line):
                yield f"{name}: imports {line.split()[-1]}, which unpickles"


if __name__ == "__main__":
    found = list(faults(pathlib.Path(sys.argv[1])))
    print("\n".join(found))
    sys.exit(1 if found else 0)
