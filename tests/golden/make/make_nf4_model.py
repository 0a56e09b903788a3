#!/usr/bin/env python3
"""llama_untied in NF4 with double quantisation as transformers and bitsandbytes store it: quantised by the library's
own code on loading, then save_pretrained."""
import os
from common import *
import bitsandbytes
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


def main():
    a = args()
    name = a.spec["train_models"][0]
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(os.path.join(a.out, "models", name), dtype=torch.float32, quantization_config=config)
    path = os.path.join(a.out, "quant", name + "_nf4")
    model.save_pretrained(path)
    generation = os.path.join(path, "generation_config.json")
    if os.path.exists(generation): os.remove(generation)
    print(path, bitsandbytes.__version__)


main()
