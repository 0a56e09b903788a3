// SPDX-License-Identifier: Apache-2.0

#include "sharding/zero.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "kernels/adamw.h"
#include "kernels/global_norm.h"

namespace ft {
namespace {

static_assert(kNormTile == kShardAlign, "no tile of the norm is cut");

std::span<float> Floats(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

template <typename Element>
std::span<std::byte> Bytes(std::span<Element> values) {
  return std::as_writable_bytes(values);
}

}  // namespace

void ShardedOptimizer::LaneOps::Copy(Buffers& into, const Buffers& from) {
  if (into.empty()) {
    for (const at::Tensor& buffer : from) into.push_back(buffer.clone());
    return;
  }
  for (size_t i = 0; i < into.size(); ++i) into[i].copy_(from[i]);
}

void ShardedOptimizer::LaneOps::Add(Buffers& into, const Buffers& from) {
  for (size_t i = 0; i < into.size(); ++i) into[i].add_(from[i]);
}

ShardedOptimizer::ShardedOptimizer(Partition partition, ZeroOptions options,
                                   Collective& collective)
    : partition_(std::move(partition)),
      options_(options),
      collective_(collective) {
  FT_CHECK(partition_.ranks() == collective.size());
  FT_CHECK(options.zero_stage == 0 || options.zero_stage == 1);
  FT_CHECK(options.lanes_per_rank >= 1);
  for (size_t b = 0; b < partition_.buckets().size(); ++b) {
    const int64_t padded = partition_.padded_size(b);
    const int64_t shard = partition_.buckets()[b].shard_size;
    const int64_t state = options.zero_stage == 0 ? padded : shard;
    parameters_.push_back(at::zeros({padded}));
    gradients_.push_back(at::zeros({padded}));
    shard_gradients_.push_back(at::zeros({shard}));
    exp_avg_.push_back(at::zeros({state}));
    exp_avg_sq_.push_back(at::zeros({state}));
  }
}

at::Tensor ShardedOptimizer::ParameterView(size_t index) const {
  const Fragment& fragment = partition_.fragments()[index];
  return parameters_[fragment.bucket].narrow(0, fragment.start, fragment.numel);
}

at::Tensor ShardedOptimizer::GradientView(size_t index) const {
  const Fragment& fragment = partition_.fragments()[index];
  return gradients_[fragment.bucket].narrow(0, fragment.start, fragment.numel);
}

void ShardedOptimizer::TakeLane() {
  FT_CHECK(lanes_taken_ < options_.lanes_per_rank);
  if (++lanes_taken_ == options_.lanes_per_rank) {
    lanes_.AddTo(gradients_);
    return;
  }
  lanes_.Push(gradients_);
  for (at::Tensor& gradient : gradients_) gradient.zero_();
}

absl::Status ShardedOptimizer::ReduceScatterRound() {
  FT_CHECK(lanes_taken_ == options_.lanes_per_rank);
  lanes_taken_ = 0;
  for (size_t b = 0; b < gradients_.size(); ++b) {
    const std::span<float> step = Floats(shard_gradients_[b]);
    if (rounds_ > 0 && round_.size() < step.size()) round_.resize(step.size());
    const std::span<float> round =
        rounds_ == 0 ? step : std::span(round_).first(step.size());
    FT_RETURN_IF_ERROR(collective_.ReduceScatter(round, Floats(gradients_[b])),
                       "reduce-scatter of gradients");
    for (size_t i = 0; rounds_ > 0 && i < step.size(); ++i) step[i] += round[i];
    gradients_[b].zero_();
  }
  ++rounds_;
  return absl::OkStatus();
}

absl::StatusOr<double> ShardedOptimizer::ClipGradients(double max_norm) {
  double squares = 0;
  for (const at::Tensor& shard : shard_gradients_) {
    const std::span<const float> values = Floats(shard);
    std::vector<double> tiles(values.size() / kNormTile);
    TileSquares(values, tiles);
    std::vector<double> all(tiles.size() * collective_.size());
    FT_RETURN_IF_ERROR(
        collective_.AllGather(Bytes(std::span(all)), Bytes(std::span(tiles))),
        "gather of the gradient norm");
    // By bucket, then by index: padding tiles are zero and change nothing.
    for (const double tile : all) squares += tile;
  }
  const double norm = std::sqrt(squares);
  clip_factor_ = ClipFactor(norm, max_norm);
  return norm;
}

Interval ShardedOptimizer::UpdatedPart(int64_t bucket) const {
  const int64_t shard = partition_.buckets()[bucket].shard_size;
  if (options_.zero_stage == 0) return {0, partition_.padded_size(bucket)};
  return {collective_.rank() * shard, (collective_.rank() + 1) * shard};
}

absl::Status ShardedOptimizer::GatherShards(const Buffers& buffers) {
  for (size_t b = 0; b < buffers.size(); ++b) {
    const int64_t shard = partition_.buckets()[b].shard_size;
    const std::span<float> all = Floats(buffers[b]);
    const std::span<float> mine =
        all.subspan(collective_.rank() * shard, shard);
    FT_RETURN_IF_ERROR(collective_.AllGather(Bytes(all), Bytes(mine)));
  }
  return absl::OkStatus();
}

absl::Status ShardedOptimizer::Update(double learning_rate) {
  if (options_.zero_stage == 0) {
    for (size_t b = 0; b < gradients_.size(); ++b) {
      FT_RETURN_IF_ERROR(
          collective_.AllGather(Bytes(Floats(gradients_[b])),
                                Bytes(Floats(shard_gradients_[b]))),
          "gather of gradients");
    }
  }
  ++steps_;
  for (const Fragment& fragment : partition_.fragments()) {
    const Interval part = UpdatedPart(fragment.bucket);
    const int64_t begin = std::max(part.begin, fragment.start);
    const int64_t end = std::min(part.end, fragment.start + fragment.numel);
    if (begin >= end) continue;
    const size_t size = end - begin, offset = begin - part.begin;
    const std::span<const float> gradient =
        options_.zero_stage == 0
            ? Floats(gradients_[fragment.bucket]).subspan(begin, size)
            : Floats(shard_gradients_[fragment.bucket]).subspan(offset, size);
    AdamWUpdate({.learning_rate = learning_rate,
                 .beta1 = options_.beta1,
                 .beta2 = options_.beta2,
                 .eps = options_.eps,
                 .weight_decay = fragment.decays ? options_.weight_decay : 0,
                 .step = steps_,
                 .gradient_scale = clip_factor_},
                Floats(parameters_[fragment.bucket]).subspan(begin, size),
                gradient,
                Floats(exp_avg_[fragment.bucket]).subspan(offset, size),
                Floats(exp_avg_sq_[fragment.bucket]).subspan(offset, size));
  }
  DropGradients();
  if (options_.zero_stage == 1) {
    FT_RETURN_IF_ERROR(GatherShards(parameters_), "gather of parameters");
  }
  return absl::OkStatus();
}

void ShardedOptimizer::DropGradients() {
  for (at::Tensor& gradient : gradients_) gradient.zero_();
  lanes_.Drop();
  lanes_taken_ = 0;
  rounds_ = 0;
  clip_factor_ = 1;
}

int64_t ShardedOptimizer::state_bytes() const {
  int64_t bytes = 0;
  for (const at::Tensor& state : exp_avg_) bytes += state.nbytes();
  for (const at::Tensor& state : exp_avg_sq_) bytes += state.nbytes();
  return bytes;
}

std::vector<StatePiece> ShardedOptimizer::SavePieces() const {
  std::vector<StatePiece> pieces;
  for (const Fragment& fragment : partition_.fragments()) {
    const Interval own = partition_.OwnedPart(fragment, collective_.rank());
    if (own.size() == 0) continue;
    const int64_t at = fragment.start + own.begin;
    const int64_t in_state = at - UpdatedPart(fragment.bucket).begin;
    const auto add = [&](const char* kind, const at::Tensor& buffer,
                         int64_t offset) {
      pieces.push_back({fragment.name, kind, own.begin,
                        Floats(buffer).subspan(offset, own.size())});
    };
    add(kMaster, parameters_[fragment.bucket], at);
    add(kExpAvg, exp_avg_[fragment.bucket], in_state);
    add(kExpAvgSq, exp_avg_sq_[fragment.bucket], in_state);
  }
  return pieces;
}

std::vector<std::span<float>> ShardedOptimizer::ShardSpans() const {
  std::vector<std::span<float>> spans;
  for (size_t b = 0; b < parameters_.size(); ++b) {
    const int64_t size = partition_.buckets()[b].shard_size;
    const int64_t begin = collective_.rank() * size;
    const int64_t in_state = begin - UpdatedPart(static_cast<int64_t>(b)).begin;
    spans.push_back(Floats(parameters_[b]).subspan(begin, size));
    spans.push_back(Floats(exp_avg_[b]).subspan(in_state, size));
    spans.push_back(Floats(exp_avg_sq_[b]).subspan(in_state, size));
  }
  return spans;
}

int64_t ShardedOptimizer::shard_numel() const {
  return 3 * partition_.shard_elements();
}

void ShardedOptimizer::CopyShard(std::span<float> out) const {
  FT_CHECK(std::cmp_equal(out.size(), shard_numel()));
  float* to = out.data();
  for (const std::span<float> part : ShardSpans()) {
    to = std::copy(part.begin(), part.end(), to);
  }
}

absl::Status ShardedOptimizer::RestoreShard(std::span<const float> in) {
  FT_CHECK(std::cmp_equal(in.size(), shard_numel()));
  const float* from = in.data();
  for (const std::span<float> part : ShardSpans()) {
    std::copy_n(from, part.size(), part.begin());
    from += part.size();
  }
  FT_RETURN_IF_ERROR(GatherShards(parameters_), "gather of parameters");
  if (options_.zero_stage > 0) return absl::OkStatus();
  FT_RETURN_IF_ERROR(GatherShards(exp_avg_), "gather of exp_avg");
  FT_RETURN_IF_ERROR(GatherShards(exp_avg_sq_), "gather of exp_avg_sq");
  return absl::OkStatus();
}

absl::Status ShardedOptimizer::CheckPieces(const SavedPieces& pieces) const {
  std::set<std::string> known;
  for (const Fragment& fragment : partition_.fragments()) {
    known.insert(fragment.name);
    for (const char* kind : {kMaster, kExpAvg, kExpAvgSq}) {
      FT_RETURN_IF_ERROR(
          pieces.CheckCover(fragment.name, kind, fragment.numel));
    }
  }
  for (const std::string& name : pieces.Names()) {
    if (!known.contains(name)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the checkpoint has a tensor ", name, " that does not learn here"));
    }
  }
  return absl::OkStatus();
}

absl::Status ShardedOptimizer::LoadPieces(const SavedPieces& pieces) {
  FT_RETURN_IF_ERROR(CheckPieces(pieces));
  for (const Fragment& fragment : partition_.fragments()) {
    FT_RETURN_IF_ERROR(
        pieces.Fill(fragment.name, kMaster, 0,
                    Floats(parameters_[fragment.bucket])
                        .subspan(fragment.start, fragment.numel)));
    const Interval part = UpdatedPart(fragment.bucket);
    const int64_t begin = std::max(part.begin, fragment.start);
    const int64_t end = std::min(part.end, fragment.start + fragment.numel);
    if (begin >= end) continue;
    for (const auto& [kind, buffer] :
         {std::pair{kExpAvg, &exp_avg_[fragment.bucket]},
          std::pair{kExpAvgSq, &exp_avg_sq_[fragment.bucket]}}) {
      FT_RETURN_IF_ERROR(pieces.Fill(
          fragment.name, kind, begin - fragment.start,
          Floats(*buffer).subspan(begin - part.begin, end - begin)));
    }
  }
  return absl::OkStatus();
}

}  // namespace ft
