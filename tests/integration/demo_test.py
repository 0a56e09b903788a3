#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/demo, interrupted wherever it can be: no process stays behind.

    demo_test.py BUILD_DIR

Each run of the script is a session of its own in a HOME of its own; as soon as
it has said a certain line it gets the signal, as from Ctrl-C, kill or a
terminal that is closed.
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP

# After which line; which signal; to all of its processes, or the script alone.
CASES = [
    ("1/5", INT, True),
    ("1/5", TERM, False),
    ("2/5", INT, True),
    ("coordinator started", INT, True),
    ("worker w-1 started", TERM, True),
    ("3/5", INT, True),
    ("attempt 1 on 2 workers", INT, True),
    ("STARTING -> RUNNING", TERM, False),
    ("step 1/40", INT, True),
    ("step 2/40", HUP, True),
]


def processes_of(home):
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # It has ended.
        if home in line:
            found.append(line)
    return found


def demo(home, build):
    environment = {key: value for key, value in os.environ.items()
                   if key not in ("XDG_DATA_HOME", "FTCTL_ADDRESS", "FTCTL_TOKEN_FILE", "FT_MODEL_ROOT")}
    cache = environment.get("FT_CACHE") or os.path.join(
        environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ft")
    environment.update(HOME=home, FT_CACHE=cache, FT_BUILD=build, NO_COLOR="1")
    return subprocess.Popen([ROOT / "tools/demo", "--work", f"{home}/out"], env=environment,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)


def check(home, build, line, number, to_all):
    script = demo(home, build)
    said = []
    for text in script.stdout:
        said.append(text)
        if line in text:
            (os.killpg if to_all else os.kill)(script.pid, number)
            break
    said += script.stdout.readlines()
    code = script.wait()
    left = processes_of(home)
    good = code == 128 + number and not left
    print(f"{'ok    ' if good else 'FAILED'} {number.name} after \"{line}\": exit {code}, left {left}")
    if not good:
        print("".join(said))
    return good


def main():
    build = str(pathlib.Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as home:
        results = [check(home, build, *case) for case in CASES]
        models = os.listdir(pathlib.Path(home, ".local/share/ft/models"))
        print(f"models: {models}")
        results.append(models == ["smollm2-135m"])
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
