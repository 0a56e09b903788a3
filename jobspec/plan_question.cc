// SPDX-License-Identifier: Apache-2.0

#include "jobspec/plan_question.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "jobspec/defaults.h"

namespace ft {
namespace {

// m and v in one byte each, a scale of fp32 a block of 256 (arXiv:2110.02861).
constexpr double kEightBitMoments = 2 + 8.0 / 256;
constexpr int64_t kDefaultLoraRank = 16;

bool IsLora(const v1::JobSpec& spec) { return spec.adaptation().has_lora(); }

bool IsNf4(const v1::JobSpec& spec) {
  return spec.quantization().weights() == v1::QUANTIZED_WEIGHTS_NF4;
}

BaseStorage StorageOf(const v1::JobSpec& spec, double activation_bytes) {
  switch (spec.quantization().weights()) {
    case v1::QUANTIZED_WEIGHTS_NF4:
      return !spec.quantization().has_double_quant() ||
                     spec.quantization().double_quant()
                 ? BaseStorage::kNf4Double
                 : BaseStorage::kNf4;
    case v1::QUANTIZED_WEIGHTS_INT8:
      return BaseStorage::kInt8;
    default:
      return activation_bytes == 4 ? BaseStorage::kFp32 : BaseStorage::kBf16;
  }
}

}  // namespace

bool LearnsWholeBlocks(const v1::JobSpec& spec) {
  return spec.adaptation().has_full() || spec.adaptation().has_freeze();
}

JobQuestion::JobQuestion(v1::JobSpec spec, const ModelShape& model,
                         const PlanOptions& options)
    : spec_(std::move(spec)), model_(model) {
  v1::Resources& resources = *spec_.mutable_resources();
  on_device_ = resources.gpus().max() > 0 || options.device_memory.has_value();
  is_moved_to_devices_ = on_device_ && resources.gpus().max() == 0;
  ranks_ = options.ranks.value_or(resources.gpus().max() > 0
                                      ? resources.gpus().max()
                                      : resources.ranks().max());
  resources.clear_gpus();
  resources.clear_ranks();
  v1::IntRange& gang =
      on_device_ ? *resources.mutable_gpus() : *resources.mutable_ranks();
  gang.set_min(ranks_);
  gang.set_max(ranks_);
  const int lanes = spec_.determinism().lanes();
  has_lanes_ = lanes != 0;
  ApplyDefaults(spec_);
  recomputes_ = spec_.model().recompute() == v1::RECOMPUTE_BLOCK;
  longest_ =
      std::min<int64_t>(spec_.data().cutoff_len(),
                        options.longest.value_or(spec_.data().cutoff_len()));
}

std::vector<std::string> JobQuestion::Faults() const {
  std::vector<std::string> faults;
  if (const int lanes = spec_.determinism().lanes();
      has_lanes_ && lanes % ranks_ != 0) {
    faults.push_back(absl::StrCat("determinism.lanes: ", lanes,
                                  " is no multiple of ", ranks_, " ranks"));
  }
  if (IsLora(spec_)) {
    const std::vector<LinearShape> linears = model_.Linears();
    std::vector<std::string> unknown;
    for (const std::string& target : spec_.adaptation().lora().targets()) {
      const bool is_there = std::any_of(
          linears.begin(), linears.end(),
          [&](const LinearShape& linear) { return IsTarget(target, linear); });
      if (target != "all" && !is_there) unknown.push_back(target);
    }
    if (!unknown.empty()) {
      std::vector<std::string> kinds = {"all"};
      for (const LinearShape& linear : linears) kinds.push_back(linear.kind);
      faults.push_back(
          absl::StrCat("adaptation.lora.targets: the model has no linear ",
                       absl::StrJoin(unknown, ", ").substr(0, 200),
                       "; there is ", absl::StrJoin(kinds, ", ")));
    }
  }
  return faults;
}

int64_t JobQuestion::Lanes(int ranks) const {
  const int64_t lanes = spec_.determinism().lanes();
  return lanes % ranks == 0 ? lanes : ranks;
}

// What level 0 is divided by 2^level.
int64_t JobQuestion::Micro(int level) const {
  const int64_t lanes = Lanes(ranks_);
  // A lane never has more examples than its share of the batch.
  const int64_t share = (spec_.batch().sequences() + lanes - 1) / lanes;
  const int64_t micro = std::min<int64_t>(spec_.batch().micro(), share);
  return std::max<int64_t>(1, micro >> level);
}

bool JobQuestion::IsPairs() const {
  const v1::Stage& stage = spec_.stage();
  return stage.has_reward() || stage.has_dpo() || stage.has_orpo() ||
         stage.has_simpo() || stage.has_cpo();
}

int64_t JobQuestion::Tokens(int64_t micro) const {
  // Unpacked, each example goes by itself.
  return (spec_.data().packing() ? micro : 1) * longest_ * (IsPairs() ? 2 : 1);
}

double JobQuestion::MomentBytes() const {
  const double hidden = static_cast<double>(model_.hidden_size);
  switch (spec_.optimizer().kind_case()) {
    case v1::Optimizer::kAdamw8Bit:
      return kEightBitMoments;
    case v1::Optimizer::kLion:
      return spec_.precision() == v1::PRECISION_BF16_PURE ? 2 : 4;
    case v1::Optimizer::kSgd:
      return 0;
    case v1::Optimizer::kAdafactor: {
      // A row and a column of fp32 a matrix; the narrow side decides.
      const double narrow =
          IsLora(spec_) ? static_cast<double>(spec_.adaptation().lora().rank())
                        : hidden;
      return 4 / narrow + 4 / hidden;
    }
    default:
      return spec_.precision() == v1::PRECISION_BF16_PURE ? 4 : 8;
  }
}

int JobQuestion::Height(int rung, int ranks) const {
  switch (rung) {
    case kRecompute:
      return recomputes_ ? 0 : 1;
    case kMicro: {
      int height = 0;
      while (spec_.data().packing() && Micro(height) > 1) ++height;
      return height;
    }
    case kEightBit:
      return MomentBytes() > kEightBitMoments ? 1 : 0;
    case kStage:
      // One rank owns all, whatever the stage.
      return std::max(0,
                      (ranks > 1 ? 3 : 1) - spec_.parallelism().zero_stage());
    case kOffload:
      return on_device_ ? v1::OFFLOAD_PARAMS - spec_.parallelism().offload()
                        : 0;
    case kLora:
      return IsLora(spec_) ? 0 : 1;
    case kNf4:
      return IsNf4(spec_) ? 0 : 1;
  }
  return 0;
}

bool JobQuestion::IsAllowed(const Levels& levels) const {
  const int stage = spec_.parallelism().zero_stage() + levels[kStage];
  const bool recomputes = recomputes_ || levels[kRecompute] > 0;
  const bool has_8_bits =
      spec_.optimizer().has_adamw_8bit() || levels[kEightBit] > 0;
  const bool learns = LearnsWholeBlocks(spec_) && levels[kLora] == 0;
  return !(stage == 3 && !recomputes) && !(stage == 0 && has_8_bits) &&
         !(levels[kNf4] > 0 && learns);
}

MemoryQuestion JobQuestion::At(const Levels& levels, int ranks) const {
  const bool is_fp32 = spec_.precision() == v1::PRECISION_FP32;
  const bool is_pure = spec_.precision() == v1::PRECISION_BF16_PURE;
  MemoryQuestion q{.model = model_, .on_device = on_device_};
  q.activation_bytes = is_fp32 ? 4 : 2;

  const v1::Adaptation& adaptation = spec_.adaptation();
  const bool becomes_lora = levels[kLora] > 0;
  if (becomes_lora) {
    q.lora_rank = kDefaultLoraRank;
  } else if (adaptation.has_lora()) {
    q.lora_rank = adaptation.lora().rank();
    const auto& targets = adaptation.lora().targets();
    if (targets.size() != 1 || targets[0] != "all") {
      q.lora_targets.assign(targets.begin(), targets.end());
    }
  } else if (adaptation.has_bottleneck()) {
    q.bottleneck_size = adaptation.bottleneck().size() == 0
                            ? 64
                            : adaptation.bottleneck().size();
  } else if (adaptation.has_freeze()) {
    q.learning_blocks = adaptation.freeze().last_blocks();
  }
  q.base = levels[kNf4] > 0 ? BaseStorage::kNf4Double
                            : StorageOf(spec_, q.activation_bytes);

  // Adapters learn in fp32. Whole blocks do beside a master copy of fp32, but
  // for bf16_pure, and their gradients are those of the working copy.
  if ((becomes_lora || !LearnsWholeBlocks(spec_)) || is_fp32) {
    q.working_bytes = 4;
    q.gradient_bytes = 4;
    q.master_bytes = 0;
  } else {
    q.working_bytes = 2;
    q.gradient_bytes = 2;
    q.master_bytes = is_pure ? 0 : 4;
  }
  q.moment_bytes = levels[kEightBit] > 0 ? kEightBitMoments : MomentBytes();
  // An adapter that is switched off is the reference itself.
  q.has_reference = (spec_.stage().has_dpo() || spec_.stage().has_kto()) &&
                    LearnsWholeBlocks(spec_) && !becomes_lora;

  q.zero_stage = spec_.parallelism().zero_stage() + levels[kStage];
  q.ranks = ranks;
  q.lanes = Lanes(ranks);
  const int64_t micro = Micro(levels[kMicro]);
  q.rounds =
      (spec_.batch().sequences() + micro * q.lanes - 1) / (micro * q.lanes);
  switch (spec_.parallelism().offload() + levels[kOffload]) {
    case v1::OFFLOAD_OPTIMIZER:
      q.offloaded = HostPart::kOptimizer;
      break;
    case v1::OFFLOAD_PARAMS:
      q.offloaded = HostPart::kOptimizerAndWeights;
      break;
    default:
      q.offloaded = HostPart::kNothing;
  }
  q.tokens = Tokens(micro);
  q.supervised_tokens = q.tokens;
  q.loss_chunk = LossChunkRows(model_.vocab_size);
  q.recomputes_blocks = recomputes_ || levels[kRecompute] > 0;
  return q;
}

std::vector<PlanChange> JobQuestion::Changes(const Levels& levels,
                                             int ranks) const {
  std::vector<PlanChange> changes;
  const MemoryQuestion q = At(levels, ranks);
  if (levels[kRecompute] > 0) changes.push_back({"model.recompute", "block"});
  if (levels[kMicro] > 0) {
    changes.push_back({"batch.micro", absl::StrCat(Micro(levels[kMicro]))});
  }
  if (levels[kEightBit] > 0) changes.push_back({"optimizer", "adamw_8bit"});
  if (levels[kStage] > 0) {
    changes.push_back({"parallelism.zero_stage", absl::StrCat(q.zero_stage)});
  }
  if (levels[kOffload] > 0) {
    changes.push_back(
        {"parallelism.offload",
         q.offloaded == HostPart::kOptimizer ? "optimizer" : "params"});
  }
  if (levels[kLora] > 0) {
    changes.push_back(
        {"adaptation", absl::StrCat("{lora: {rank: ", q.lora_rank, "}}")});
  }
  if (levels[kNf4] > 0) changes.push_back({"quantization", "{weights: nf4}"});
  if (ranks != ranks_) {
    changes.push_back({"resources.gpus", absl::StrCat(ranks)});
    if (has_lanes_ && q.lanes != spec_.determinism().lanes()) {
      changes.push_back({"determinism.lanes", absl::StrCat(q.lanes)});
    }
  }
  return changes;
}

std::string JobQuestion::Method() const {
  const v1::Adaptation& adaptation = spec_.adaptation();
  std::string method = "full fine-tuning";
  if (adaptation.has_lora()) {
    method = absl::StrCat("LoRA of rank ", adaptation.lora().rank(), " on ",
                          absl::StrJoin(adaptation.lora().targets(), ", "));
  } else if (adaptation.has_bottleneck()) {
    method = "bottleneck adapters";
  } else if (adaptation.has_freeze()) {
    method = absl::StrCat(std::abs(int64_t{adaptation.freeze().last_blocks()}),
                          " blocks");
  }
  if (adaptation.has_full()) return method;
  switch (StorageOf(spec_, spec_.precision() == v1::PRECISION_FP32 ? 4 : 2)) {
    case BaseStorage::kFp32:
      return method + " over fp32";
    case BaseStorage::kBf16:
      return method + " over bf16";
    case BaseStorage::kNf4:
    case BaseStorage::kNf4Double:
      return method + " over NF4";
    case BaseStorage::kInt8:
      return method + " over int8";
  }
  return method;
}

}  // namespace ft
