#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The incumbent, transformers and PEFT, on the very cases that ft-bench-step
trains: the same token ids, labels, order of rows, first adapter, optimizer and
clipping. One process is one figure; it ends with one line of JSON.

Cases 1 and 2 are a bare loop over rows of one length. Case 3 is the library's
own Trainer, which pads each batch to its longest row; the tokens counted are
the real ones.
"""
import argparse
import json
import os
import resource
import time
import warnings

LEARNING_RATE = 2e-4


def process_age():
    """Seconds since the kernel started this process."""
    with open("/proc/self/stat", encoding="ascii") as file:
        ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return now - ticks / os.sysconf("SC_CLK_TCK")


def page_faults():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


class Meter:
    """Adds up the timed steps."""

    def __init__(self, warm, steps):
        self.warm, self.steps = warm, steps
        self.losses, self.wall, self.cpu, self.faults = [], [], [], []
        self.tokens, self.targets = [], []
        self.first_step = None

    def begin(self):
        self.at = time.monotonic(), time.process_time(), page_faults()

    def end(self, tokens, targets):
        wall, cpu, faults = self.at
        self.wall.append(time.monotonic() - wall)
        self.cpu.append(time.process_time() - cpu)
        self.faults.append(page_faults() - faults)
        self.tokens.append(tokens)
        self.targets.append(targets)
        if self.first_step is None:
            self.first_step = process_age()

    def result(self):
        timed = slice(self.warm, self.warm + self.steps)
        tokens, cpu = self.tokens[timed], self.cpu[timed]
        return {
            "side": "peer",
            "warm_steps": self.warm,
            "timed_steps": self.steps,
            "tokens": sum(tokens),
            "supervised_share": sum(self.targets[timed]) / sum(tokens),
            "cpu_s_per_1k_tokens": 1000 * sum(cpu) / sum(tokens),
            "cpu_s_per_1k_tokens_of_steps": [1000 * c / t for c, t in zip(cpu, tokens)],
            "tokens_per_s": sum(tokens) / sum(self.wall[timed]),
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "first_step_s": self.first_step,
            "page_faults_per_step": sum(self.faults[timed]) // self.steps,
            "losses": self.losses,
        }


def read_rows(path):
    """Rows of the case as (ids, labels), and how many make a step."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        sequences = int(file.metadata()["sequences"])
        ids, learned = file.get_tensor("ids"), file.get_tensor("learned")
        ends = file.get_tensor("cu_seqlens").tolist()
    labels = ids.masked_fill(learned == 0, -100)
    rows = [(ids[a:b], labels[a:b]) for a, b in zip(ends, ends[1:])]
    return rows, sequences


def targets_of(labels):
    """A label counts where a token stands before it."""
    return int((labels[..., 1:] != -100).sum())


def load(model_dir, adapter_dir):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter_dir, is_trainable=True)
    return model.train()


def bare_loop(model, rows, sequences, meter):
    import torch

    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    batches = len(rows) // sequences
    for step in range(meter.warm + meter.steps):
        begin = step % batches * sequences
        meter.begin()
        ids = torch.stack([r[0] for r in rows[begin : begin + sequences]])
        labels = torch.stack([r[1] for r in rows[begin : begin + sequences]])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        meter.losses.append(loss.item())
        meter.end(ids.numel(), targets_of(labels))


def library_trainer(model, rows, sequences, meter, pad):
    import tempfile

    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    def collate(features):
        longest = max(len(f["input_ids"]) for f in features)

        def padded(key, filler):
            return torch.stack(
                [
                    torch.nn.functional.pad(f[key], (0, longest - len(f[key])), value=filler)
                    for f in features
                ]
            )

        return {
            "input_ids": padded("input_ids", pad),
            "labels": padded("labels", -100),
            "attention_mask": padded("attention_mask", 0),
        }

    class InOrder(Trainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def training_step(self, model, inputs, *rest):
            self.counts = (int(inputs["attention_mask"].sum()), targets_of(inputs["labels"]))
            loss = super().training_step(model, inputs, *rest)
            meter.losses.append(loss.item())
            return loss

    class Stopwatch(TrainerCallback):
        def on_step_begin(self, *_, **__):
            meter.begin()

        def on_step_end(self, *_, **__):
            meter.end(*trainer.counts)

    features = [
        {"input_ids": i, "labels": l, "attention_mask": torch.ones_like(i)} for i, l in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=sequences,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            max_steps=meter.warm + meter.steps,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = InOrder(
            model=model,
            args=args,
            train_dataset=features,
            data_collator=collate,
            callbacks=[Stopwatch()],
        )
        trainer.train()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--cases", required=True)
    parser.add_argument("--case", type=int, default=1, choices=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()

    import torch
    import transformers

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    rows, sequences = read_rows(os.path.join(args.cases, f"case{args.case}.safetensors"))
    model = load(args.model, os.path.join(args.cases, "adapter"))
    meter = Meter(args.warm, args.steps)
    if args.case == 3:
        pad = model.config.pad_token_id
        library_trainer(model, rows, sequences, meter, 0 if pad is None else pad)
    else:
        bare_loop(model, rows, sequences, meter)
    print(json.dumps({**meter.result(), "case": args.case, "threads": args.threads}))


if __name__ == "__main__":
    main()
