// SPDX-License-Identifier: Apache-2.0

#include "train/sharded_model.h"

#include <algorithm>
#include <map>
#include <vector>

#include "common/check.h"
#include "common/status.h"
#include "kernels/dynamic_code.h"
#include "model/spans.h"

namespace ft {
namespace {

// Adapters of units below it stay whole at stage 3.
constexpr int64_t kSmallUnit = 16 << 20;

ZeroOptions OptimizerOptions(const std::vector<NamedParameter>& trainables,
                             ZeroOptions options) {
  if (options.zero_stage < 3) return options;
  std::map<int64_t, int64_t> elements;
  for (const NamedParameter& parameter : trainables) {
    elements[parameter.unit] += parameter.tensor.numel();
  }
  const bool stay_whole =
      std::ranges::all_of(trainables, &NamedParameter::is_adapter) &&
      std::ranges::all_of(
          elements, [](const auto& unit) { return unit.second < kSmallUnit; });
  if (stay_whole) options.zero_stage = 2;
  return options;
}

ShardedOptimizer MakeOptimizer(const Transformer& model,
                               const ShardingOptions& options,
                               Collective& collective) {
  const std::vector<NamedParameter> trainables = model.Trainables();
  std::vector<PartitionInput> inputs;
  for (const NamedParameter& parameter : trainables) {
    inputs.push_back({.name = parameter.name,
                      .shape = parameter.tensor.sizes().vec(),
                      .unit = parameter.unit,
                      .decays = parameter.decays});
  }
  const ZeroOptions zero = OptimizerOptions(trainables, options.zero);
  const int64_t bucket = zero.zero_stage == 3 ? 0 : options.bucket_elements;
  const int64_t align =
      zero.moments == MomentFormat::k8Bit ? kDynamicBlock : kFragmentAlign;
  return ShardedOptimizer(Partition(inputs, collective.size(), bucket, align),
                          zero, collective);
}

}  // namespace

ShardedModel::ShardedModel(Transformer& model, const ShardingOptions& options,
                           Collective& collective)
    : model_(model),
      zero_stage_(options.zero.zero_stage),
      optimizer_(MakeOptimizer(model, options, collective)) {
  // One by one: what a tensor took is free before the next is bound.
  for (size_t i = 0; i < optimizer_.partition().fragments().size(); ++i) {
    optimizer_.SetParameter(
        i, FloatsOf(model.Trainables()[i].tensor.detach().contiguous()));
    model.Bind(i, optimizer_.ParameterView(i), optimizer_.GradientView(i));
  }
  if (zero_stage_ == 3) {
    std::vector<FrozenShards::Weight> weights;
    for (const FrozenWeight& weight : model.FrozenWeights()) {
      weights.push_back({weight.unit, weight.tensor.contiguous()});
    }
    frozen_ = std::make_unique<FrozenShards>(weights, collective);
    for (size_t i = 0; i < weights.size(); ++i) {
      model.BindFrozen(i, frozen_->View(i));
    }
  }
  const bool has_moved =
      frozen_ != nullptr ||
      std::ranges::none_of(model.Trainables(), &NamedParameter::is_adapter);
  if (has_moved) model.ForgetFiles();
  // At every stage, so that gradients of a tied embedding, of which each use is
  // a unit's own, are added up in one order.
  model.RunByUnits(is_in_step() ? this : nullptr,
                   options.recomputes_blocks || zero_stage_ == 3);
}

void ShardedModel::BeginPass(bool is_last_of_lane) {
  if (is_in_step()) optimizer_.BeginBackward(is_last_of_lane);
}

absl::Status ShardedModel::PassWithoutTokens(bool and_back) {
  if (is_in_step()) model_.PassUnits(and_back);
  return status_;
}

absl::Status ShardedModel::ForEachUnit(
    const std::function<void(int64_t unit)>& visit) {
  for (int64_t unit = kEmbeddingUnit; unit <= model_.spec().num_layers;
       ++unit) {
    Acquire(unit);
    FT_RETURN_IF_ERROR(status_);
    visit(unit);
    Release(unit);
  }
  return absl::OkStatus();
}

int64_t ShardedModel::frozen_bytes() const {
  if (frozen_ == nullptr) return 0;
  return frozen_->shard_bytes() + frozen_->gathered_bytes();
}

void ShardedModel::Acquire(int64_t unit) {
  if (status_.ok()) status_ = optimizer_.GatherUnit(unit);
  if (status_.ok() && frozen_ != nullptr) status_ = frozen_->Gather(unit);
}

void ShardedModel::Release(int64_t unit) {
  if (!status_.ok()) return;
  optimizer_.ReleaseUnit(unit);
  if (frozen_ != nullptr) frozen_->Release(unit);
}

void ShardedModel::BeginGradients(int64_t unit) {
  if (status_.ok()) optimizer_.BeginGradients(unit);
}

void ShardedModel::EndGradients(int64_t unit) {
  if (status_.ok()) status_ = optimizer_.EndGradients(unit);
}

}  // namespace ft
