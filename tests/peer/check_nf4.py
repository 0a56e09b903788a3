#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Models in 4 bits between ft-train and transformers with bitsandbytes, both
ways, and a merged model, by bytes and by logits of a few texts.

    --model    a directory of floats
    --stored   what `ft-train quantize` made of it
    --adapter  trained by a job with quantization: {weights: nf4}
    --merged   what `ft-train merge` made of model and adapter, fp32
"""
import argparse
import pathlib
import shutil
import tempfile

import torch
from bitsandbytes import functional as bnb
from check_adapter import BOUND, TEXTS, our_logits, worst
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

# bitsandbytes finds the code of a scale in a table of 2^16 entries over [-1, 1]:
# what it takes may be that much farther away than the nearest.
TABLE_STEP = 2.0**-15


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options).eval()


def quantised(model):
    return {
        name: module
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "quant_state", None) is not None
    }


def expanded(tensors, name):
    """The weight from the tensors of a file, by the formula alone."""
    codes = tensors[name].flatten()
    codes = torch.stack([codes >> 4, codes & 15], 1).flatten().long()
    scales = tensors[f"{name}.nested_quant_map"][tensors[f"{name}.absmax"].long()]
    above = tensors[f"{name}.nested_absmax"].repeat_interleave(256)[: scales.numel()]
    state = bnb.unpack_tensor_to_dict(tensors[f"{name}.quant_state.bitsandbytes__nf4"])
    absmax = scales * above + torch.tensor(state["nested_offset"], dtype=torch.float32)
    values = tensors[f"{name}.quant_map"][codes] * absmax.repeat_interleave(64)[: codes.numel()]
    return values.reshape(state["shape"])


def distances(tensors, name, floats):
    """How far each scale lies from what its code stands for, as share of the largest."""
    weight = name.removesuffix(".absmax")
    flat = torch.nn.functional.pad(floats[weight].flatten(), (0, -floats[weight].numel() % 64))
    state = bnb.unpack_tensor_to_dict(tensors[f"{weight}.quant_state.bitsandbytes__nf4"])
    above = flat.reshape(-1, 64).abs().amax(1).double() - state["nested_offset"]
    largest = tensors[f"{weight}.nested_absmax"].double().repeat_interleave(256)[: above.numel()]
    taken = tensors[f"{weight}.nested_quant_map"].double()[tensors[name].long()]
    return (above / largest - taken).abs()


def check_ours(args, ids, folder):
    """bitsandbytes makes the weights of the formula out of our file."""
    theirs = load(args.stored)
    modules = quantised(theirs)
    assert len(modules) == 7 * theirs.config.num_hidden_layers, sorted(modules)
    tensors = load_file(pathlib.Path(args.stored) / "model.safetensors")
    for name, module in modules.items():
        weight = bnb.dequantize_4bit(module.weight.data, module.weight.quant_state)
        assert torch.equal(weight.reshape(-1), expanded(tensors, f"{name}.weight").reshape(-1)), name
    difference = worst(theirs, ids, our_logits(args.train, args.stored, None, ids, folder))
    print(f"our file: {len(modules)} weights to the bit, logits {difference:.2e}")
    assert difference <= BOUND, "the stored model differs"
    return theirs, tensors


def check_theirs(args, ids, folder, ours):
    """We read what bitsandbytes quantised and transformers stored."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                bnb_4bit_compute_dtype=torch.float32)
    model = load(args.model, quantization_config=config)
    path = folder / "theirs"
    model.save_pretrained(path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pathlib.Path(args.model) / file, path)
    tensors = load_file(path / "model.safetensors")
    floats = load_file(pathlib.Path(args.model) / "model.safetensors")
    scales = apart = 0
    for name, theirs in tensors.items():
        assert name in ours, name
        if name.endswith(".absmax"):
            farther = distances(tensors, name, floats) - distances(ours, name, floats)
            assert farther.max() <= TABLE_STEP, f"{name}: {farther.max()}"
            scales, apart = scales + theirs.numel(), apart + int((theirs != ours[name]).sum())
        elif not name.endswith(("_map", "_absmax", "__nf4")):
            assert torch.equal(theirs, ours[name]), name
    assert set(ours) == set(tensors), set(ours) ^ set(tensors)
    difference = worst(model, ids, our_logits(args.train, path, None, ids, folder))
    print(f"their file: same codes, {apart} of {scales} scales have another, logits {difference:.2e}")
    assert difference <= BOUND, "their model differs"


def check_adapter(args, ids, folder, base):
    ours = our_logits(args.train, args.model, args.adapter, ids, folder)
    merged = worst(load(args.merged), ids, ours)
    adapted = PeftModel.from_pretrained(base, args.adapter).eval()
    difference = worst(adapted, ids, ours)
    with torch.no_grad(), adapted.disable_adapter():
        moved = (adapted(torch.tensor([ids[0]])).logits[0] - ours[0]).abs().max().item()
    print(f"adapter on 4 bits {difference:.2e}, merged {merged:.2e}, the adapter moves logits by {moved:.2f}")
    assert difference <= BOUND, "the adapted model differs"
    assert merged <= BOUND, "the merged model differs"
    assert moved > 0.1, "the adapter does nothing"


def main():
    parser = argparse.ArgumentParser()
    for name in ("train", "model", "stored", "adapter", "merged"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    ids = [tokenizer(text).input_ids for text in TEXTS]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        base, tensors = check_ours(args, ids, folder)
        check_theirs(args, ids, folder, tensors)
        check_adapter(args, ids, folder, base)


if __name__ == "__main__":
    main()
