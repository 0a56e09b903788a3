#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a rank holds at each ZeRO stage: full fine-tuning of a random model of
219 million parameters on four ranks, each rank's own memory against the bytes
of sharding/README.md. Needs 20 GiB; the programs are in --build."""
import argparse
import array
import json
import math
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import time

import harness
from harness import ROOT, BenchError, say

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 64,
    "vocab_size": 32000,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
JOB = """\
schema: ft.v1
name: memory
model: {{base: random-219m, recompute: block}}
data: {{train: [{{path: counting.jsonl, format: openai}}], cutoff_len: 64}}
stage: sft
adaptation: full
schedule: {{steps: 3, learning_rate: 1.0e-5}}
batch: {{sequences: 4, micro: 1}}
parallelism: {{zero_stage: {stage}}}
resources: {{ranks: {ranks}}}
"""
MIB = 1 << 20


def shapes():
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    vocab = CONFIG["vocab_size"]
    yield -1, "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield layer, prefix + "input_layernorm.weight", (hidden,)
        for name in "qkvo":
            yield layer, f"{prefix}self_attn.{name}_proj.weight", (hidden, hidden)
        yield layer, prefix + "post_attention_layernorm.weight", (hidden,)
        for name in ("gate", "up"):
            yield layer, f"{prefix}mlp.{name}_proj.weight", (inner, hidden)
        yield layer, prefix + "mlp.down_proj.weight", (hidden, inner)
    yield CONFIG["num_hidden_layers"], "model.norm.weight", (hidden,)
    yield CONFIG["num_hidden_layers"], "lm_head.weight", (vocab, hidden)


def write_model(folder):
    """Weights from one random block, over and over: their values do not matter."""
    folder.mkdir(parents=True)
    tiny = ROOT / "tests/golden/models/tiny_chat"
    for path in tiny.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.copy(path, folder)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))
    source = random.Random(1)
    block = array.array("f", (source.gauss(0, 0.02) for _ in range(1 << 18))).tobytes()
    ones = array.array("f", [1.0] * CONFIG["hidden_size"]).tobytes()
    header, end = {}, 0
    for _, name, shape in shapes():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, _, shape in shapes():
            left = 4 * math.prod(shape)
            if len(shape) == 1:
                out.write(ones)
                continue
            while left > 0:
                out.write(block[:left])
                left -= min(left, len(block))


def elements_of_units():
    units = {}
    for unit, _, shape in shapes():
        units[unit] = units.get(unit, 0) + math.prod(shape)
    return units


def state_bytes(stage, ranks):
    """sharding/README.md: parameters, gradients and moments of a rank."""
    units = elements_of_units()
    whole = sum(units.values())
    shard = whole / ranks
    first, *others = units.values()
    places = first + max(others)  # From stage 2 on, of gradients; at 3 of both.
    if stage == 2:
        # Buckets of at least 25 Mi elements: the embedding, then blocks.
        places = first + 3 * others[0]
    held = 8 * (whole if stage == 0 else shard)
    held += 4 * (whole if stage < 3 else shard + places)
    held += 4 * (shard + (whole if stage < 2 else places))
    return held


def anonymous_bytes(pid):
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(fields.get("RssAnon", "0 kB").split()[0]) * 1024


def children_of(pid):
    try:
        return [int(c) for c in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def measure(program, work, stage, ranks):
    """The most of each rank's own memory, and what it says of its state."""
    job = work / f"stage-{stage}.yaml"
    job.write_text(JOB.format(stage=stage, ranks=ranks))
    output = work / f"stage-{stage}"
    shutil.rmtree(output, ignore_errors=True)
    command = [program, "run", job, "--output", output, "--model_root", work / "models"]
    command += ["--world", ranks]
    log = work / f"stage-{stage}.log"
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen([str(w) for w in command], stderr=out)
        most = {}
        while process.poll() is None:
            for pid in [process.pid, *children_of(process.pid)]:
                most[pid] = max(most.get(pid, 0), anonymous_bytes(pid))
            time.sleep(0.02)
    shutil.rmtree(output, ignore_errors=True)
    if process.returncode != 0:
        raise BenchError(f"stage {stage}: {log.read_text()[-2000:]}")
    return [most[pid] for pid in sorted(most)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=ROOT / "build", type=pathlib.Path)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--record", action="store_true", help="write into bench/results")
    args = parser.parse_args()
    build = harness.Build(args.build)
    program = build.program("bin/ft-train")
    work = build.work / "memory"
    if not (work / "models/random-219m").exists():
        say("writing the model")
        write_model(work / "models/random-219m")
    shutil.copy(ROOT / "examples/counting.jsonl", work)
    whole = sum(elements_of_units().values())
    rows = []
    for stage in args.stages:
        say(f"stage {stage}, {args.ranks} ranks")
        most = measure(program, work, stage, args.ranks)
        rows.append({"stage": stage, "rss_anon": most, "state": state_bytes(stage, args.ranks)})
    results = {
        "machine": harness.describe_machine(build),
        "parameters": whole,
        "ranks": args.ranks,
        "stages": rows,
    }
    text = (
        f"{harness.machine_line(results['machine'])}\n\nFull fine-tuning, fp32, {whole:,} random "
        f"parameters, {args.ranks} ranks, blocks recomputed.\n\n"
    )
    text += harness.table(
        ["stage", "state a rank by the table, MiB", "own memory a rank, most, MiB", "beside the state"],
        [
            [
                str(row["stage"]),
                f"{row['state'] / MIB:.0f}",
                f"{min(row['rss_anon']) / MIB:.0f} to {max(row['rss_anon']) / MIB:.0f}",
                f"{(max(row['rss_anon']) - row['state']) / MIB:.0f}",
            ]
            for row in rows
        ],
    )
    harness.write_results(build, "memory", results, text, args.record)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(str(error))
