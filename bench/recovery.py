#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`make recovery-bench`: what deaths cost. Ranks are killed under a SmolLM2 job,
a coordinator under 200 workers. bench/README.md says what each figure means."""
import argparse
import datetime
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import harness
from harness import ROOT, BenchError, run, say

JOB = """\
schema: ft.v1
name: bench-recovery
model: {{base: {model}}}
data:
  train: [{{path: rows.json, format: alpaca}}]
  variables: {{name: NovaTune, author: Seed Labs}}
stage: sft
adaptation: {{lora: {{rank: 8, alpha: 16}}}}
schedule: {{steps: {steps}, learning_rate: 2.0e-4}}
batch: {{sequences: 4, micro: 4}}
resources: {{ranks: {ranks}}}
"""


def seconds_of(stamp):
    """Of a timestamp of protobuf's JSON, which may have nanoseconds."""
    text, _, fraction = stamp.rstrip("Z").partition(".")
    whole = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc)
    return whole.timestamp() + float(f"0.{fraction or 0}")


class Job:
    """A job of ours, and what `ftctl watch` says of it."""

    def __init__(self, build, service, ranks, steps):
        address, token, folder = service
        shutil.copy(ROOT / "examples/identity_en.json", folder / "rows.json")
        path = folder / "job.yaml"
        path.write_text(JOB.format(model=harness.MODEL, ranks=ranks, steps=steps))
        self.ftctl = [build.program("bin/ftctl"), "--address", address, "--token_file", token]
        self.id = run([*self.ftctl, "submit", path, "-o", "name", "--no_check"]).strip()
        self.steps, self.events = [], []
        words = [*self.ftctl, "watch", self.id, "-o", "json"]
        self.watch = subprocess.Popen(
            [str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.watch.stdout:
            said = json.loads(line)
            if "event" in said:
                self.events.append(said["event"])
            if "progress" in said and "eval_loss" not in said["progress"]:
                self.steps.append(said["progress"])

    def end(self):
        run([*self.ftctl, "cancel", self.id])
        self.watch.wait(60)
        self.reader.join()

    def rank_processes(self):
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                folder = os.readlink(entry / "cwd") if entry.name.isdigit() else ""
                if f"/{self.id}/" in folder:
                    found.append(int(entry.name))
            except OSError:
                continue  # It is gone, or not ours.
        return found

    def time_of(self, change):
        return next(seconds_of(e["at"]) for e in self.events if e.get("message") == change)


def bench_kills(build, args):
    """A rank dies every so often. What was useful is the time that the steps take
    where nobody dies: their number times the median of their durations."""
    with harness.service_of(build, workers=1, threads=os.cpu_count()) as service:
        job = Job(build, service, ranks=1, steps=1_000_000)
        harness.wait_for(lambda: len(job.steps) >= 3, 120)
        for kill in range(args.kills):
            time.sleep(args.gap)
            victims = harness.wait_for(job.rank_processes)
            os.kill(victims[0], signal.SIGKILL)
            say(f"kill {kill + 1} of {args.kills} after step {job.steps[-1]['step']}")
        time.sleep(args.gap)
        job.end()
    steps = job.steps[2:]
    times = [seconds_of(step["at"]) for step in steps]
    wall = times[-1] - times[0]
    durations = [
        after - before
        for before, after, a, b in zip(times, times[1:], steps, steps[1:])
        if a["attempt_epoch"] == b["attempt_epoch"]
    ]
    distinct = {int(step["step"]) for step in steps}
    step_seconds = statistics.median(durations)
    return {
        "kills": args.kills,
        "gap_s": args.gap,
        "steps": len(distinct),
        "steps_taken_again": len(steps) - len(distinct),
        "step_s": step_seconds,
        "wall_s": wall,
        "effective": (len(distinct) - 1) * step_seconds / wall,
        "snapshot_share": sum(s.get("snapshot_seconds", 0) for s in steps)
        / sum(s["seconds"] for s in steps),
    }


def bench_start(build, args):
    """From the submit to both ranks ready, model loaded, data read."""
    seconds = []
    for _ in range(args.starts):
        with harness.service_of(build, workers=1, slots=2) as service:
            address, token, _ = service
            ftctl = [build.program("bin/ftctl"), "--address", address, "--token_file", token]
            harness.wait_for(
                lambda: '"READY"' in (said := run([*ftctl, "workers", "-o", "json"]))
                or "STATE_READY" in said
            )
            time.sleep(5)  # The ranks that stand by have loaded their libraries.
            job = Job(build, service, ranks=2, steps=1_000)
            harness.wait_for(lambda: job.steps, 120)
            job.end()
            seconds.append(job.time_of("STARTING -> RUNNING") - seconds_of(job.events[0]["at"]))
    return {"tries": args.starts, "median_s": statistics.median(seconds), "all_s": seconds}


def is_serving(address):
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def bench_fleet(build, args):
    """kill -9 of a coordinator with many workers and a queue, started again at
    once."""
    tiny = build.models / "tiny-chat"
    if not tiny.exists():
        shutil.copytree(ROOT / "tests/golden/models/tiny_chat", tiny)
    with harness.coordinator_of(build) as coordinator:
        client = [build.service, "--address", coordinator.addresses["client"]]
        client += ["--token_file", coordinator.data / "tokens/admin.token", "submit"]
        client += ["--job", ROOT / "examples/tiny_chat.yaml", "--clients", 8]
        run([*client, "--count", args.queued])
        command = [build.program("bench/ft-bench-fleet"), "--workers", args.workers]
        command += ["--address", coordinator.addresses["worker"], "--seconds", args.fleet_seconds]
        command += ["--token_file", coordinator.data / "tokens/worker.token"]
        with subprocess.Popen([str(w) for w in command], stdout=subprocess.PIPE, text=True) as fleet:
            time.sleep(args.fleet_seconds / 2)
            killed = time.time()
            coordinator.kill()
            coordinator.start()
            harness.wait_for(lambda: is_serving(coordinator.addresses["http"]))
            serving = time.time() - killed
            said = json.loads(fleet.communicate()[0])
    before, after = said["incarnations"]["1"], said["incarnations"]["2"]
    if before["attached"] < args.workers or after["attached"] < args.workers:
        raise BenchError(f"not all workers attached: {said}")
    return {
        "workers": args.workers,
        "queued_jobs": args.queued,
        "serving_s": serving,
        "all_attached_s": after["last_unix"] - killed,
        "heartbeat_p50_ms": said["heartbeat_p50_ms"],
        "heartbeat_p99_ms": said["heartbeat_p99_ms"],
    }


def table_of(results):
    rows = []
    if kills := results.get("kills"):
        rows += [
            [
                "effective training time",
                f"{kills['effective']:.3f}",
                "0.93",
                f"{kills['kills']} kills, one every {kills['gap_s']:.0f} s, of a SmolLM2 job; "
                f"{kills['steps']} steps of {kills['step_s']:.2f} s, "
                f"{kills['steps_taken_again']} taken again",
            ],
            [
                "local snapshot, share of a step",
                f"{100 * kills['snapshot_share']:.2f} %",
                "1 %",
                "one a step, LoRA rank 8",
            ],
        ]
    if start := results.get("start"):
        rows.append(
            [
                "submit to 2 warm ranks ready, s",
                f"{start['median_s']:.2f}",
                "",
                f"SmolLM2, median of {start['tries']}",
            ]
        )
    if fleet := results.get("fleet"):
        rows += [
            [
                "kill -9 of the coordinator to serving, s",
                f"{fleet['serving_s']:.2f}",
                "3",
                f"{fleet['workers']} workers, {fleet['queued_jobs']} jobs queued",
            ],
            [
                "... to all workers attached, s",
                f"{fleet['all_attached_s']:.2f}",
                "10",
                f"heartbeats p50 {fleet['heartbeat_p50_ms']:.1f} ms, "
                f"p99 {fleet['heartbeat_p99_ms']:.1f} ms",
            ],
        ]
    return harness.table(["what", "figure", "wanted", "of which"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=ROOT / "build", type=pathlib.Path)
    parser.add_argument("--only", choices=["kills", "start", "fleet"])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--gap", type=float, default=60, help="seconds between kills")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--queued", type=int, default=2000, help="jobs in the queue")
    parser.add_argument("--fleet_seconds", type=float, default=40)
    parser.add_argument("--record", action="store_true", help="write into bench/results")
    args = parser.parse_args()
    build = harness.Build(args.build)
    build.model()
    machine = harness.describe_machine(build)
    results = {"machine": machine}
    for name, bench in (("kills", bench_kills), ("start", bench_start), ("fleet", bench_fleet)):
        if args.only in (None, name):
            say(name)
            results[name] = bench(build, args)
    text = harness.machine_line(machine) + "\n\n" + table_of(results)
    harness.write_results(build, "recovery", results, text, args.record)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
