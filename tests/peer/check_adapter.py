#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loads a model, and an adapter if one is named, that ft-train wrote with
transformers and PEFT, and compares the logits of a few texts with ours.

The bound is 5e-4 with fp32 logits up to 50; two attention paths of the
reference itself differ by 1e-4.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = [
    "Who are you?",
    "The three most important inventions of the nineteenth century were",
    "Count to 5.\n1 2 3 4 5. \u4f60\u597d",
]
BOUND = 5e-4


def our_logits(train, model, adapter, ids, folder):
    ids_file, out = folder / "ids.json", folder / "logits.safetensors"
    ids_file.write_text(json.dumps(ids))
    command = [train, "logits", "--model", model, "--ids", ids_file, "--out", out]
    if adapter:
        command += ["--adapter", adapter]
    subprocess.run(command, check=True)
    tensors = load_file(out)
    return [tensors[f"logits.{i}"] for i in range(len(ids))]


def worst(model, ids, ours):
    with torch.no_grad():
        return max(
            (model(torch.tensor([row])).logits[0] - mine).abs().max().item()
            for row, mine in zip(ids, ours)
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter")
    args = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    ids = [tokenizer(text).input_ids for text in TEXTS]
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        base_difference = worst(base, ids, our_logits(args.train, args.model, None, ids, folder))
        assert base_difference <= BOUND, "the model differs"
        if not args.adapter:
            print(f"model {base_difference:.2e}")
            return
        adapted = PeftModel.from_pretrained(base, args.adapter).eval()
        ours = our_logits(args.train, args.model, args.adapter, ids, folder)
        difference = worst(adapted, ids, ours)
        with torch.no_grad(), adapted.disable_adapter():
            plain = adapted(torch.tensor([ids[0]])).logits[0]
        moved = (plain - ours[0]).abs().max().item()
    print(f"base {base_difference:.2e}, adapter {difference:.2e}, the adapter moves logits by {moved:.2f}")
    assert difference <= BOUND, "the adapted model differs"
    assert moved > 0.1, "the adapter does nothing"


if __name__ == "__main__":
    main()
