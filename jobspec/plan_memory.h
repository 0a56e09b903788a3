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

#include "absl/strings/string_view.h"
#include "formats/model_shape.h"

namespace ft {

// How the frozen base lies in memory.
enum class BaseStorage { kFp32, kBf16, kNf4, kNf4Double, kInt8 };

// Bytes of `weights` elements of linears so stored.
double StoredBytes(BaseStorage storage, double weights);

// What lies in the host's memory, not the device's.
enum class HostPart { kNothing, kOptimizer, kOptimizerAndWeights };

struct MemoryQuestion {
  ModelShape model;

  // True: a device, whose context takes memory too. False: the host.
  bool on_device = true;
  // Of an element of activations, embeddings and norms.
  double activation_bytes = 2;

  // What learns, the first of these that is not zero: LoRA of this rank on
  // `lora_targets`, the last parts of module names (none: all linears of
  // blocks); two bottlenecks of this width a block; so many last blocks
  // (negative: first ones). All zero: every parameter.
  int64_t lora_rank = 0;
  std::vector<std::string> lora_targets;
  int64_t bottleneck_size = 0;
  int64_t learning_blocks = 0;
  BaseStorage base = BaseStorage::kBf16;
  // A frozen copy of the whole model beside the one that learns.
  bool has_reference = false;

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
  HostPart offloaded = HostPart::kNothing;

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
  std::string what;  // "frozen: 6.979 billion in linears, 3.601 GB; ..."
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

  // The host's memory of a rank: the peak, where there is no device; what is
  // offloaded; checkpoints on their way; the program.
  std::vector<MemoryTerm> host_terms;
  double host_bytes = 0;
  // Of `host_bytes`: the mapped file of a base that all ranks of a machine
  // share.
  double host_shared_bytes = 0;

  double Bytes(absl::string_view term) const;
  double HostBytes(absl::string_view term) const;
};

// REQUIRES: ranks, lanes, rounds, tokens >= 1; zero_stage in [0, 3]
MemoryPlan PlanMemory(const MemoryQuestion& question);

// Whether `target`, a name of adaptation.lora.targets, names this linear of
// some block: q_proj, self_attn.q_proj.
bool IsTarget(absl::string_view target, const LinearShape& linear);

// The context of a device, which nobody can use otherwise.
inline constexpr double kDeviceContextBytes = 0.5 * (1 << 30);
// What the allocator rounds up.
inline constexpr double kAllocatorMargin = 1.03;

}  // namespace ft
