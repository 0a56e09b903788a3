// SPDX-License-Identifier: Apache-2.0

#include "jobspec/plan_memory.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/check.h"

namespace ft {
namespace {

// An adapter of fewer elements a block stays whole at stage 3.
constexpr int64_t kLeastShardedElements = 16 << 20;
// The program and its libraries, before it has read a model.
constexpr double kLibtorchBytes = 0.35e9;
// Snapshots of a rank on the memory file system (artifact/snapshot_ring.h).
constexpr double kSnapshots = 2;

// What the shapes come to.
struct Shapes {
  double linears = 0;  // Frozen elements of the linears of blocks.
  double others = 0;   // Frozen: embedding, head, norms, biases.
  int64_t largest_unit = 0;
  int64_t largest_linear = 0;
  int64_t trainable = 0;
  int64_t trainable_of_block = 0;
  int64_t learning_layers = 0;  // Through which gradients flow.
};

int64_t AdapterOfBlock(const MemoryQuestion& q) {
  int64_t adapter = 0;
  for (const LinearShape& linear : q.model.Linears()) {
    const bool is_target =
        q.lora_targets.empty() ||
        std::any_of(q.lora_targets.begin(), q.lora_targets.end(),
                    [&](const std::string& target) {
                      return IsTarget(target, linear);
                    });
    if (is_target) {
      adapter += q.lora_rank * (linear.in_features + linear.out_features);
    }
  }
  return adapter;
}

Shapes ShapesOf(const MemoryQuestion& q) {
  const ModelShape& model = q.model;
  const int64_t layers = model.num_layers;
  const int64_t all = model.NumParameters();
  Shapes shapes;
  for (const LinearShape& linear : model.Linears()) {
    shapes.largest_linear = std::max(shapes.largest_linear, linear.numel());
  }
  shapes.largest_unit = std::max(model.Block(), model.Embedding());
  shapes.learning_layers = layers;
  int64_t frozen_layers = layers;
  int64_t frozen = all;
  if (q.lora_rank > 0) {
    shapes.trainable_of_block = AdapterOfBlock(q);
    shapes.trainable = layers * shapes.trainable_of_block;
  } else if (q.bottleneck_size > 0) {
    // Two a block, down and up, each with a bias.
    shapes.trainable_of_block = 2 * (2 * model.hidden_size * q.bottleneck_size +
                                     q.bottleneck_size + model.hidden_size);
    shapes.trainable = layers * shapes.trainable_of_block;
  } else if (q.learning_blocks != 0) {
    const int64_t learning = std::min(layers, std::abs(q.learning_blocks));
    shapes.trainable_of_block = model.Block();
    shapes.trainable = learning * model.Block();
    frozen_layers = layers - learning;
    frozen = all - shapes.trainable;
    // Gradients end at the last blocks; the first ones are below all others.
    if (q.learning_blocks > 0) shapes.learning_layers = learning;
  } else {
    shapes.trainable_of_block = model.Block();
    shapes.trainable = all;
    frozen_layers = 0;
    frozen = 0;
  }
  const int64_t linears = frozen_layers * model.LinearsOfBlock();
  shapes.linears = static_cast<double>(linears);
  shapes.others = static_cast<double>(frozen - linears);
  return shapes;
}

// Activations of one block for a token, in elements: three of the residual's
// width, queries and their output, keys and values, gate and up.
double BlockElements(const ModelShape& model) {
  return 3.0 * static_cast<double>(model.hidden_size) +
         2.0 * static_cast<double>(model.q_features()) +
         2.0 * static_cast<double>(model.kv_features()) +
         2.0 * static_cast<double>(model.intermediate_size);
}

// "64.76 billion", "4.884 million".
std::string Count(double elements) {
  return elements >= 1e9 ? absl::StrFormat("%.4g billion", elements / 1e9)
                         : absl::StrFormat("%.4g million", elements / 1e6);
}

bool IsQuantised(BaseStorage base) {
  return base == BaseStorage::kNf4 || base == BaseStorage::kNf4Double ||
         base == BaseStorage::kInt8;
}

double SumOf(const std::vector<MemoryTerm>& terms, absl::string_view name) {
  double bytes = 0;
  for (const MemoryTerm& each : terms) {
    if (name.empty() || each.name == name) bytes += each.bytes;
  }
  return bytes;
}

// Writes the terms, a kind of them a method.
class Ledger {
 public:
  explicit Ledger(const MemoryQuestion& question)
      : q_(question),
        shapes_(ShapesOf(question)),
        has_frozen_(shapes_.linears > 0 || shapes_.others > 0),
        offloads_(question.on_device &&
                  question.offloaded != HostPart::kNothing),
        offloads_weights_(question.on_device &&
                          question.offloaded ==
                              HostPart::kOptimizerAndWeights) {}

  MemoryPlan Write() {
    plan_.parameters = q_.model.NumParameters();
    plan_.trainable = shapes_.trainable;
    AddFrozen();
    AddLearning();
    AddActivations();
    AddMoved();
    plan_.peak_bytes = kAllocatorMargin * SumOf(plan_.terms, "");
    plan_.device_bytes =
        plan_.peak_bytes + (q_.on_device ? kDeviceContextBytes : 0);
    AddHost();
    return std::move(plan_);
  }

 private:
  static void Add(std::vector<MemoryTerm>& terms, const char* name,
                  std::string what, double bytes) {
    if (bytes > 0) terms.push_back({name, std::move(what), bytes});
  }
  // Where weights that do not change, or change in large pieces, lie.
  std::vector<MemoryTerm>& WeightTerms() {
    return offloads_weights_ ? plan_.host_terms : plan_.terms;
  }

  double ranks() const { return q_.ranks; }
  double trainable() const { return static_cast<double>(shapes_.trainable); }
  double trainable_of_block() const {
    return static_cast<double>(shapes_.trainable_of_block);
  }
  double shard() const { return trainable() / ranks(); }
  // Embeddings and norms are never quantised.
  double other_bytes() const {
    return q_.base == BaseStorage::kFp32 ? 4 : q_.activation_bytes;
  }

  void AddFrozen();
  void AddLearning();
  void AddActivations();
  void AddMoved();
  void AddHost();

  const MemoryQuestion& q_;
  const Shapes shapes_;
  const bool has_frozen_;
  const bool offloads_;
  const bool offloads_weights_;
  double frozen_bytes_ = 0;
  MemoryPlan plan_;
};

void Ledger::AddFrozen() {
  const double divided = q_.zero_stage == 3 ? ranks() : 1;
  if (has_frozen_) {
    const double linears = StoredBytes(q_.base, shapes_.linears) / divided;
    const double others = other_bytes() * shapes_.others / divided;
    frozen_bytes_ = linears + others;
    Add(WeightTerms(), "weights",
        absl::StrFormat("frozen: %s in linears, %.4g GB; the rest, %.4g GB",
                        Count(shapes_.linears), linears / 1e9, others / 1e9),
        frozen_bytes_);
  }
  if (q_.has_reference) {
    Add(WeightTerms(), "reference", "a frozen copy of the model",
        q_.activation_bytes * static_cast<double>(plan_.parameters) / divided);
  }
}

void Ledger::AddLearning() {
  // Small adapters are not worth a gather, nor a way over the bus.
  const bool is_large =
      !has_frozen_ || shapes_.trainable_of_block >= kLeastShardedElements;
  const double kept = q_.zero_stage == 3 && is_large ? shard() : trainable();
  Add(is_large ? WeightTerms() : plan_.terms, "parameters",
      absl::StrCat(Count(trainable()), " that learn"), q_.working_bytes * kept);
  const double reduced =
      q_.zero_stage >= 2 ? shard() + trainable_of_block() : trainable();
  Add(plan_.terms, "gradients",
      offloads_ ? "of the block at work" : "one for each that learns",
      q_.gradient_bytes * (offloads_ ? trainable_of_block() : reduced));
  const double owned = q_.zero_stage >= 1 ? shard() : trainable();
  if (offloads_) {
    // The host steps in fp32 and needs the gradient there.
    Add(plan_.host_terms, "optimizer", "fp32 weights, gradients and moments",
        (4 + q_.gradient_bytes + q_.moment_bytes) * owned);
    Add(plan_.host_terms, "pinned", "a block on its way, both directions",
        (q_.working_bytes + q_.gradient_bytes) * trainable_of_block());
  } else {
    Add(plan_.terms, "optimizer", "master copies and moments",
        (q_.master_bytes + q_.moment_bytes) * owned);
  }
}

void Ledger::AddActivations() {
  const double tokens = static_cast<double>(q_.tokens);
  const double element = q_.activation_bytes;
  const double block = tokens * element * BlockElements(q_.model);
  const double input =
      tokens * element * static_cast<double>(q_.model.hidden_size);
  Add(plan_.terms, "saved",
      q_.recomputes_blocks ? "the input of each block"
                           : "the activations of each block",
      static_cast<double>(shapes_.learning_layers) *
          (q_.recomputes_blocks ? input : block));
  const double scratch =
      has_frozen_ && IsQuantised(q_.base)
          ? element * static_cast<double>(shapes_.largest_linear)
          : 0;
  const double loss =
      element *
      static_cast<double>(std::min(q_.loss_chunk, q_.supervised_tokens)) *
      static_cast<double>(q_.model.vocab_size);
  plan_.peak_at =
      block + scratch >= loss ? "forward and backward of a block" : "loss";
  Add(plan_.terms, "block or loss", plan_.peak_at,
      std::max(block + scratch, loss));
}

void Ledger::AddMoved() {
  if (q_.zero_stage == 3 || offloads_weights_) {
    // The embedding and the head are units, too.
    const double frozen_unit =
        std::max(StoredBytes(q_.base, static_cast<double>(q_.model.Block())),
                 other_bytes() * static_cast<double>(q_.model.Embedding()));
    const double learning_unit =
        q_.working_bytes * static_cast<double>(shapes_.largest_unit);
    Add(plan_.terms, "gathered", "two units",
        2 * (has_frozen_ ? frozen_unit : learning_unit));
  }
  const double bucket = std::min(
      trainable(),
      std::max(static_cast<double>(q_.bucket_elements), trainable_of_block()));
  Add(plan_.terms, "exchange", "pieces of the largest bucket, fp32",
      4 * bucket * (ranks() - 1) / ranks());
  const int64_t lanes_per_rank = std::max<int64_t>(1, q_.lanes / q_.ranks);
  const int partial_sums =
      std::bit_width(static_cast<uint64_t>(lanes_per_rank)) - 1;
  const bool keeps_rounds = q_.rounds > 1 && q_.zero_stage <= 1 && !offloads_;
  Add(plan_.terms, "carry", "partial sums of lanes and rounds",
      4 * trainable() * partial_sums + (keeps_rounds ? 4 * shard() : 0));
}

void Ledger::AddHost() {
  if (!q_.on_device) {
    Add(plan_.host_terms, "rank", "the peak above", plan_.peak_bytes);
    if (q_.base == BaseStorage::kFp32 && q_.model.dtype == DType::kF32) {
      plan_.host_shared_bytes = frozen_bytes_;
    }
  }
  // A checkpoint holds fp32 weights and moments of the shard.
  const double state = (4 + q_.moment_bytes) * shard();
  Add(plan_.host_terms, "checkpoint", "a shard on its way to the disk", state);
  Add(plan_.host_terms, "snapshots", "the last two steps, in /dev/shm",
      kSnapshots * state);
  Add(plan_.host_terms, "program", "ft-train with libtorch", kLibtorchBytes);
  plan_.host_bytes = SumOf(plan_.host_terms, "");
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

bool IsTarget(absl::string_view target, const LinearShape& linear) {
  return target == linear.kind ||
         absl::EndsWith(absl::StrCat(".", linear.part, ".", linear.kind),
                        absl::StrCat(".", target));
}

double MemoryPlan::Bytes(absl::string_view term) const {
  return SumOf(terms, term);
}

double MemoryPlan::HostBytes(absl::string_view term) const {
  return SumOf(host_terms, term);
}

MemoryPlan PlanMemory(const MemoryQuestion& q) {
  FT_CHECK(q.ranks >= 1 && q.lanes >= 1 && q.rounds >= 1 && q.tokens >= 1);
  FT_CHECK(q.zero_stage >= 0 && q.zero_stage <= 3);
  return Ledger(q).Write();
}

}  // namespace ft
