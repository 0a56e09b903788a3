// SPDX-License-Identifier: Apache-2.0

#include "jobspec/plan_memory.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/check.h"

namespace ft {
namespace {

constexpr double kAllocatorMargin = 1.03;
constexpr double kDeviceContextBytes = 0.5 * (1 << 30);
// An adapter of fewer elements a block stays whole at stage 3.
constexpr int64_t kLeastShardedElements = 16 << 20;

// What the shapes come to.
struct Shapes {
  int64_t linears = 0;  // Elements of the linears of blocks.
  int64_t others = 0;   // Embedding, head, norms, biases.
  int64_t block = 0;    // Elements of a block.
  int64_t largest_unit = 0;
  int64_t largest_linear = 0;
  int64_t trainable = 0;
  int64_t trainable_of_block = 0;
};

bool IsTarget(const std::vector<std::string>& targets,
              const LinearSpec& linear) {
  return targets.empty() || std::find(targets.begin(), targets.end(),
                                      linear.kind) != targets.end();
}

Shapes ShapesOf(const MemoryQuestion& q) {
  Shapes shapes;
  for (const LinearSpec& linear : q.model.Linears()) {
    const int64_t elements = linear.in_features * linear.out_features;
    shapes.linears += elements;
    shapes.largest_linear = std::max(shapes.largest_linear, elements);
    if (q.lora_rank > 0 && IsTarget(q.lora_targets, linear)) {
      shapes.trainable +=
          q.lora_rank * (linear.in_features + linear.out_features);
    }
  }
  int64_t ends = 0;  // The larger of embedding, and norm with head.
  for (const ParameterSpec& parameter : q.model.Parameters()) {
    if (parameter.layer == 0) shapes.block += parameter.numel();
    if (parameter.role == ParameterRole::kEmbedding ||
        parameter.role == ParameterRole::kHead) {
      ends = std::max(ends, parameter.numel());
    }
  }
  const int64_t all = q.model.NumParameters();
  shapes.others = all - shapes.linears;
  shapes.largest_unit = std::max(shapes.block, ends);
  if (q.lora_rank == 0) shapes.trainable = all;
  shapes.trainable_of_block =
      q.lora_rank == 0 ? shapes.block : shapes.trainable / q.model.num_layers;
  return shapes;
}

// Activations of one block for a token, in elements: three of the residual's
// width, queries and their output, keys and values, gate and up.
double BlockElements(const ModelSpec& model) {
  return 3.0 * static_cast<double>(model.hidden_size) +
         2.0 * static_cast<double>(model.q_features()) +
         2.0 * static_cast<double>(model.kv_features()) +
         2.0 * static_cast<double>(model.intermediate_size);
}

}  // namespace

double StoredBytes(BaseStorage storage, double weights) {
  switch (storage) {
    case BaseStorage::kFp32:
      return 4 * weights;
    case BaseStorage::kBf16:
      return 2 * weights;
    case BaseStorage::kNf4:
      return (0.5 + 4.0 / 64) * weights;
    case BaseStorage::kNf4Double:
      return (0.5 + 1.0 / 64 + 4.0 / (64 * 256)) * weights;
    case BaseStorage::kInt8:
      // A scale of fp32 a row is below 0.1 % of any row.
      return weights;
  }
  return 0;
}

double MemoryPlan::Bytes(absl::string_view term) const {
  double bytes = 0;
  for (const MemoryTerm& each : terms) {
    if (each.name == term) bytes += each.bytes;
  }
  return bytes;
}

MemoryPlan PlanMemory(const MemoryQuestion& q) {
  FT_CHECK(q.ranks >= 1 && q.lanes >= 1 && q.rounds >= 1 && q.tokens >= 1);
  FT_CHECK(q.zero_stage >= 0 && q.zero_stage <= 3);
  const Shapes shapes = ShapesOf(q);
  const bool is_lora = q.lora_rank > 0;
  const double element = q.on_device ? 2 : 4;  // Of an activation.
  const double n = q.ranks;
  const double t = static_cast<double>(shapes.trainable);
  const double shard = t / n;
  const double tokens = static_cast<double>(q.tokens);
  const double layers = static_cast<double>(q.model.num_layers);
  const double hidden = static_cast<double>(q.model.hidden_size);

  MemoryPlan plan;
  plan.parameters = q.model.NumParameters();
  plan.trainable = shapes.trainable;
  const auto add = [&](const char* name, std::string what, double bytes) {
    if (bytes > 0) plan.terms.push_back({name, std::move(what), bytes});
  };

  if (is_lora) {
    const double divided = q.zero_stage == 3 ? n : 1;
    const double linears =
        StoredBytes(q.base, static_cast<double>(shapes.linears)) / divided;
    // Embeddings and norms are never quantised.
    const double others = (q.base == BaseStorage::kFp32 ? 4 : element) *
                          static_cast<double>(shapes.others) / divided;
    add("weights",
        absl::StrFormat("frozen: %.4g linears in %.4g GB, the rest in %.4g GB",
                        static_cast<double>(shapes.linears), linears / 1e9,
                        others / 1e9),
        linears + others);
  }

  const bool parameters_are_sharded =
      q.zero_stage == 3 &&
      (!is_lora || shapes.trainable_of_block >= kLeastShardedElements);
  const double optimizer_bytes = q.master_bytes + q.moment_bytes;
  add("parameters", absl::StrFormat("%.4g that learn", t),
      q.working_bytes * (parameters_are_sharded ? shard : t));
  add("gradients", "one for each that learns",
      q.gradient_bytes *
          (q.zero_stage >= 2
               ? shard + static_cast<double>(shapes.trainable_of_block)
               : t));
  add("optimizer", "master copies and moments",
      optimizer_bytes * (q.zero_stage >= 1 ? shard : t));

  const double block = tokens * element * BlockElements(q.model);
  add("saved",
      q.recomputes_blocks ? "the input of each block"
                          : "the activations of each block",
      q.recomputes_blocks ? layers * tokens * hidden * element
                          : layers * block);
  const bool is_quantised = q.base == BaseStorage::kNf4 ||
                            q.base == BaseStorage::kNf4Double ||
                            q.base == BaseStorage::kInt8;
  const double scratch =
      is_lora && is_quantised
          ? element * static_cast<double>(shapes.largest_linear)
          : 0;
  const double loss =
      element *
      static_cast<double>(std::min(q.loss_chunk, q.supervised_tokens)) *
      static_cast<double>(q.model.vocab_size);
  plan.peak_at =
      block + scratch >= loss ? "forward and backward of a block" : "loss";
  add("block or loss", plan.peak_at, std::max(block + scratch, loss));

  if (q.zero_stage == 3) {
    const double unit =
        is_lora ? StoredBytes(q.base, static_cast<double>(shapes.block))
                : q.working_bytes * static_cast<double>(shapes.largest_unit);
    add("gathered", "two units", 2 * unit);
  }
  const double bucket = std::min<double>(
      t, std::max<double>(static_cast<double>(q.bucket_elements),
                          static_cast<double>(shapes.trainable_of_block)));
  add("exchange", "pieces of the largest bucket, fp32",
      4 * bucket * (n - 1) / n);
  const int64_t lanes_per_rank = std::max<int64_t>(1, q.lanes / q.ranks);
  const int partial_sums =
      std::bit_width(static_cast<uint64_t>(lanes_per_rank)) - 1;
  const bool keeps_rounds = q.rounds > 1 && q.zero_stage <= 1;
  add("carry", "partial sums of lanes and rounds",
      4 * t * partial_sums + (keeps_rounds ? 4 * shard : 0));

  double sum = 0;
  for (const MemoryTerm& term : plan.terms) sum += term.bytes;
  plan.peak_bytes = kAllocatorMargin * sum;
  plan.device_bytes = plan.peak_bytes + (q.on_device ? kDeviceContextBytes : 0);
  return plan;
}

}  // namespace ft
