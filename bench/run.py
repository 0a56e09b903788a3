#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`make bench`: our own figures as JSON and a table. bench/README.md says what
each means."""
import argparse
import json
import pathlib
import shlex
import shutil
import statistics
import subprocess
import sys
import time

import harness
from harness import ROOT, BenchError, run, say

# One pass of a few steps: from the submit to the first step counts.
FIRST_STEP_JOB = """\
schema: ft.v1
name: bench-first-step
model: {{base: {model}}}
data: {{train: [{{path: rows.json, format: alpaca}}]}}
stage: sft
adaptation: {{lora: {{rank: 8, alpha: 16}}}}
schedule: {{steps: 1, learning_rate: 2.0e-4}}
batch: {{sequences: 4, micro: 4}}
resources: {{ranks: 1}}
"""


def bench_steps(build, args):
    cases, rows = build.cases(), []
    for threads in args.threads:
        for case in args.cases:
            say(f"case {case}, {threads} thread(s): {harness.CASES[case]}")
            rows.append(
                harness.run_step(
                    [build.step, "run"],
                    args.under,
                    case,
                    threads,
                    args.warm,
                    args.steps,
                    build,
                    cases,
                )
            )
    return rows


def step_table(rows):
    head = ["case", "threads", "CPU-s per 1,000 tokens", "tokens/s", "peak RSS MiB", "cold start s"]
    return harness.table(
        head,
        [
            [
                str(r["case"]),
                str(r["threads"]),
                f"{r['cpu_s_per_1k_tokens']:.2f}",
                f"{r['tokens_per_s']:.0f}",
                f"{r['peak_rss_mib']:.0f}",
                f"{r['first_step_s']:.1f}",
            ]
            for r in rows
        ],
    )


def seconds_of_help(build, tries=21):
    program = build.program("bin/ftctl")
    seconds = []
    for _ in range(tries):
        begin = time.monotonic()
        run([program, "--help"])
        seconds.append(time.monotonic() - begin)
    return statistics.median(seconds)


def first_step_seconds(build, address, token, folder):
    """From `ftctl submit` being started to the first step in `ftctl watch`."""
    shutil.copy(ROOT / "bench/data/alpaca_en_200.json", folder / "rows.json")
    job_file = folder / "first_step.yaml"
    job_file.write_text(FIRST_STEP_JOB.format(model=harness.MODEL))
    ftctl = [str(build.program("bin/ftctl")), "--address", address, "--token_file", str(token)]
    environment = {**harness.step_environment(1), "FT_MODEL_ROOT": str(build.models)}
    begin = time.monotonic()
    job = run([*ftctl, "submit", job_file, "-o", "name", "--no_check"], env=environment).strip()
    submitted = time.monotonic() - begin
    with subprocess.Popen(
        [*ftctl, "watch", job], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as watch:
        for line in watch.stdout:
            if line.lstrip().startswith("step 1/"):
                seconds = time.monotonic() - begin
                watch.wait()
                return {"submit_s": submitted, "first_step_s": seconds}
            last = line
    raise BenchError(f"{job} took no step: {last}")


def bench_service(build, args):
    tiny = build.models / "tiny-chat"
    if not tiny.exists():
        shutil.copytree(ROOT / "tests/golden/models/tiny_chat", tiny)
    build.model()
    results = {"ftctl_help_ms": 1000 * seconds_of_help(build)}
    with harness.service_of(build, workers=1) as (address, token, folder):
        client = [*args.under, build.service, "--address", address, "--token_file", token]
        say("submit to first step")
        results["first_step"] = first_step_seconds(build, address, token, folder)
        say("artifact upload")
        results["upload"] = json.loads(
            run([*client, "upload", "--dir", folder, "--mib", args.upload_mib])
        )
    # Its two ranks never fit on one worker of one slot: the jobs stay queued.
    with harness.service_of(build, workers=1) as (address, token, folder):
        client = [*args.under, build.service, "--address", address, "--token_file", token]
        say("durable submits")
        results["submit"] = [
            json.loads(
                run(
                    [*client, "submit", "--job", ROOT / "examples/tiny_chat.yaml"]
                    + ["--clients", clients, "--count", args.submits]
                )
            )
            for clients in args.clients
        ]
    return results


def service_table(service):
    rows = [
        [f"durable submits/s, {s['clients']} clients", f"{s['submits_per_s']:.0f}"]
        + [f"p50 {s['p50_ms']:.1f} ms, p99 {s['p99_ms']:.1f} ms, {s['spec_bytes']} bytes a spec"]
        for s in service["submit"]
    ]
    upload, first = service["upload"], service["first_step"]
    rows += [
        [
            "artifact upload, MB/s",
            f"{upload['mb_per_s']:.0f}",
            f"with both digests; transfer alone {upload['transfer_mb_per_s']:.0f}; "
            f"median of {upload['tries']} x {upload['mb']:.0f} MB",
        ],
        [
            "submit to first step, s",
            f"{first['first_step_s']:.1f}",
            "SmolLM2-135M, one cold rank of one thread, 4 alpaca_en rows",
        ],
        ["`ftctl --help`, ms", f"{service['ftctl_help_ms']:.0f}", "median of 21"],
    ]
    return harness.table(["what", "figure", "of which"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=ROOT / "build", type=pathlib.Path)
    parser.add_argument("--cases", type=int, nargs="+", default=[1, 2, 3], choices=[1, 2, 3])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--warm", type=int, default=3, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=17, help="timed steps")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--submits", type=int, default=4000)
    parser.add_argument("--upload_mib", type=int, default=256)
    parser.add_argument("--only", choices=["steps", "service"])
    parser.add_argument("--under", type=shlex.split, default=[], help="start timed programs by it")
    parser.add_argument("--record", action="store_true", help="write into bench/results")
    args = parser.parse_args()
    build = harness.Build(args.build)
    machine = harness.describe_machine(build, args.under)
    results = {"machine": machine}
    text = [harness.machine_line(machine)]
    if args.only != "service":
        results["steps"] = bench_steps(build, args)
        text.append(step_table(results["steps"]))
    if args.only != "steps":
        results["service"] = bench_service(build, args)
        text.append(service_table(results["service"]))
    harness.write_results(build, args.only or "bench", results, "\n\n".join(text), args.record)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
