// SPDX-License-Identifier: Apache-2.0
//
// The bytes that a rank needs, term by term, before anything runs: from the
// shapes of config.json alone, so that a model whose weights nobody has is
// planned too.
//
//   peak = 1.03 (weights + training state + saved + max(block, loss)
//                + gathered + exchange + carry)
//
// 3 % are what the allocator rounds up.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/model_spec.h"

namespace ft {

// How the frozen base lies in memory.
enum class BaseStorage { kFp32, kBf16, kNf4, kNf4Double, kInt8 };

// Bytes of `weights` elements of linears so stored.
double StoredBytes(BaseStorage storage, double weights);

struct MemoryQuestion {
  ModelSpec model;

  // True: bf16 activations on a device. False: fp32 on the host.
  bool on_device = true;

  // Zero: every parameter learns. Else LoRA of this rank on `targets`, the last
  // parts of module names; none: all linears of blocks.
  int64_t lora_rank = 0;
  std::vector<std::string> lora_targets;
  BaseStorage base = BaseStorage::kBf16;

  // Bytes an element that learns: the copy that the forward pass reads, its
  // gradient, the master copy (0: there is none), both moments.
  double working_bytes = 4;
  double gradient_bytes = 4;
  double master_bytes = 0;
  double moment_bytes = 8;

  int zero_stage = 0;
  int ranks = 1;
  int64_t lanes = 1;
  // Reduction rounds of an optimizer step.
  int64_t rounds = 1;
  // Elements of the largest bucket of gradients.
  int64_t bucket_elements = 25 << 20;

  // Of a micro-batch of one lane.
  int64_t tokens = 2048;
  int64_t supervised_tokens = 2048;
  // Rows of logits at once.
  int64_t loss_chunk = 1024;
  bool recomputes_blocks = true;
};

// One line of the ledger.
struct MemoryTerm {
  std::string name;  // "weights"
  std::string what;  // "frozen base, NF4: 6.98e9 linears, embeddings in bf16"
  double bytes = 0;
};

struct MemoryPlan {
  int64_t parameters = 0;
  int64_t trainable = 0;

  // Those that live for the whole run, then those of the peak. Sum times the
  // margin is `peak_bytes`.
  std::vector<MemoryTerm> terms;
  double peak_bytes = 0;
  // When it is reached: "forward and backward of a block" or "loss".
  std::string peak_at;
  // peak_bytes and what the device's context takes.
  double device_bytes = 0;

  double Bytes(absl::string_view term) const;
};

// REQUIRES: ranks, lanes, rounds, tokens >= 1; zero_stage in [0, 3]
MemoryPlan PlanMemory(const MemoryQuestion& question);

}  // namespace ft
