# SPDX-License-Identifier: Apache-2.0
"""What run.py and compare.py share: the machine, one run of one side, a service
of its own, results on disk."""
import contextlib
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(
    os.environ.get("FT_CACHE")
    or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ft"
)
GGUF = CACHE / "models-src/smollm2-135m-instruct.gguf"
MODEL = "smollm2-135m"
CASES = {
    1: "4 x 128 tokens, all supervised",
    2: "4 x 128 tokens, a random 30 % supervised",
    3: "200 alpaca_en rows, chat template, 8 a step",
}
# Below it the BLAS is a reference one, or the machine is not ours alone.
LEAST_GFLOPS_A_THREAD = 30


class BenchError(Exception):
    pass


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, **options):
    """Runs a command and returns what it printed."""
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, text=True, check=False, **options
    )
    if done.returncode != 0:
        raise BenchError(f"exit {done.returncode}: {' '.join(str(w) for w in command)}")
    return done.stdout


class Build:
    """The programs of a build folder, and scratch space in it."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder).resolve()
        self.step = self.program("bench/ft-bench-step")
        self.service = self.program("bench/ft-bench-service")
        self.work = self.folder / "bench/work"
        self.models = self.work / "models"
        self.models.mkdir(parents=True, exist_ok=True)

    def program(self, name):
        path = self.folder / name
        if not path.exists():
            raise BenchError(f"{path} is missing; `make bench` builds it")
        return path

    def model(self):
        """SmolLM2 as a Hugging Face directory."""
        target = self.models / MODEL
        if not target.exists():
            if not GGUF.exists():
                raise BenchError(f"{GGUF} is missing; run tools/bootstrap model")
            run([self.program("bin/ft-train"), "import", GGUF, target], stderr=subprocess.DEVNULL)
        return target

    def cases(self):
        """The case files, written anew: they follow the code."""
        out = self.work / "cases"
        run([self.step, "prepare", "--model", self.model(), "--data", ROOT / "bench/data", "--out", out])
        return out


def step_environment(threads):
    """The same for both sides: threads that wait must not spin."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }


def run_step(command, under, case, threads, warm, steps, build, cases):
    """One process of one side, as the JSON that it prints."""
    words = [*under, *command, "--model", build.model(), "--cases", cases]
    for name, value in (("case", case), ("threads", threads), ("warm", warm), ("steps", steps)):
        words += [f"--{name}", value]
    load = os.getloadavg()[0]
    result = json.loads(run(words, env=step_environment(threads)).splitlines()[-1])
    return {**result, "load_average": round(load, 2)}


def sgemm(build, threads, under=()):
    text = run([*under, build.step, "sgemm", "--threads", threads], env=step_environment(threads))
    return json.loads(text)


def describe_machine(build, under=()):
    """Whose figures these are. Refuses a machine on which they would mean nothing."""
    cores = len(os.sched_getaffinity(0))
    gemm = {threads: sgemm(build, threads, under) for threads in sorted({1, cores})}
    one = gemm[1]["sgemm_gflops"]
    if one < LEAST_GFLOPS_A_THREAD:
        raise BenchError(
            f"sgemm gives {one:.0f} GFLOP/s on one thread, at least {LEAST_GFLOPS_A_THREAD} are "
            "wanted: another BLAS, or other work on this machine"
        )
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu.group(1) if cpu else "unknown",
        "isa": gemm[1]["isa"],
        "cores": cores,
        "memory_gib": round(int(memory.group(1)) / 2**20, 1),
        "kernel": os.uname().release,
        "load_average": round(os.getloadavg()[0], 2),
        "sgemm_gflops": {str(t): round(g["sgemm_gflops"], 1) for t, g in gemm.items()},
        "revision": run(["git", "-C", ROOT, "describe", "--always", "--dirty"]).strip(),
        "date": datetime.date.today().isoformat(),
    }


def machine_line(machine):
    gemm = ", ".join(f"{v:.0f} on {t}" for t, v in machine["sgemm_gflops"].items())
    return (
        f"{machine['cpu']}, {machine['isa']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, load {machine['load_average']}; "
        f"sgemm GFLOP/s by threads: {gemm}; revision {machine['revision']}, {machine['date']}"
    )


class Coordinator:
    """One that can be killed and started again at the same addresses."""

    def __init__(self, build, folder):
        self.build, self.folder, self.data = build, folder, folder / "coordinator"
        self.endpoint = folder / "coordinator.json"
        self.addresses = {name: "127.0.0.1:0" for name in ("client", "worker", "http")}
        self.start()

    def start(self):
        self.endpoint.unlink(missing_ok=True)
        command = [self.build.program("bin/ft-coordinator"), "--data_dir", self.data]
        command += [f"--{name}_address={address}" for name, address in self.addresses.items()]
        command += ["--endpoint_file", self.endpoint]
        with open(self.folder / "coordinator.log", "ab") as log:
            self.process = subprocess.Popen(
                [str(w) for w in command], stdout=log, stderr=log, env=step_environment(1)
            )
        said = json.loads(wait_for(lambda: self.endpoint.exists() and self.endpoint.read_text()))
        self.addresses = {name: said[f"{name}_address"] for name in self.addresses}

    def kill(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def coordinator_of(build):
    """A coordinator alone, over a folder that goes with it."""
    with tempfile.TemporaryDirectory(dir=build.work, prefix="service-") as name:
        coordinator = Coordinator(build, pathlib.Path(name))
        try:
            yield coordinator
        finally:
            coordinator.kill()


@contextlib.contextmanager
def service_of(build, workers, slots=1, threads=1):
    """A coordinator and workers, as processes of ours, over a folder that goes
    with them. Yields (address, token file, folder)."""
    with tempfile.TemporaryDirectory(dir=build.work, prefix="service-") as name:
        folder = pathlib.Path(name)
        started = []

        def start(program, words):
            endpoint = folder / f"{program}-{len(started)}.json"
            with open(folder / f"{program}-{len(started)}.log", "wb") as log:
                command = [build.program(f"bin/{program}"), *words, "--endpoint_file", endpoint]
                started.append(
                    subprocess.Popen(
                        [str(w) for w in command], stdout=log, stderr=log, env=step_environment(threads)
                    )
                )
            return json.loads(wait_for(lambda: endpoint.exists() and endpoint.read_text()))

        try:
            data = folder / "coordinator"
            free = [f"--{n}_address=127.0.0.1:0" for n in ("client", "worker", "http")]
            coordinator = start("ft-coordinator", ["--data_dir", data, *free])
            for i in range(workers):
                words = ["--data_dir", folder / f"w{i}", "--worker_id", f"w{i}"]
                words += ["--coordinator", coordinator["worker_address"]]
                words += ["--token_file", data / "tokens/worker.token"]
                words += ["--model_root", build.models, "--slots", slots]
                words += ["--train_program", build.program("bin/ft-train")]
                start("ft-worker", words)
            yield coordinator["client_address"], data / "tokens/admin.token", folder
        finally:
            for process in reversed(started):
                process.terminate()
            for process in reversed(started):
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def wait_for(value_of, seconds=60):
    """The first value that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = value_of()
        if value:
            return value
        time.sleep(0.01)
    raise BenchError(f"nothing came within {seconds} s")


def table(head, rows):
    """A table of markdown, aligned."""
    cells = [head, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def write_results(build, kind, results, text, record):
    """JSON and table into the build folder, or for good into bench/results."""
    folder = ROOT / "bench/results" if record else build.folder / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    machine = results["machine"]
    name = f"{machine['date']}-{machine['isa']}-{kind}" if record else kind
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text + "\n")
    print(text)
    say(f"written: {folder / name}.json and .md")
