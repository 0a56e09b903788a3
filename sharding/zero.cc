// SPDX-License-Identifier: Apache-2.0

#include "sharding/zero.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <type_traits>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "kernels/global_norm.h"

namespace ft {
namespace {

static_assert(kNormTile == kShardAlign, "no tile of the norm is cut");

std::span<float> Floats(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

// Bytes that may be written if the elements may.
template <typename Element>
auto Bytes(std::span<Element> values) {
  if constexpr (std::is_const_v<Element>) {
    return std::as_bytes(values);
  } else {
    return std::as_writable_bytes(values);
  }
}

}  // namespace

void ShardedOptimizer::LaneOps::Copy(at::Tensor& into, const at::Tensor& from) {
  if (into.defined()) {
    into.copy_(from);
  } else {
    into = from.clone();
  }
}

void ShardedOptimizer::LaneOps::Add(at::Tensor& into, const at::Tensor& from) {
  into.add_(from);
}

void ShardedOptimizer::Slots::Allocate(const Partition& partition) {
  std::array<int64_t, 2> sizes = {0, 0};
  for (size_t b = 0; b < partition.buckets().size(); ++b) {
    const auto bucket = static_cast<int64_t>(b);
    int64_t& size = sizes[PlaceOf(bucket)];
    size = std::max(size, partition.padded_size(bucket));
  }
  for (size_t i = 0; i < sizes.size(); ++i) places_[i] = at::zeros({sizes[i]});
}

at::Tensor ShardedOptimizer::Slots::View(int64_t bucket, int64_t padded) const {
  return places_[PlaceOf(bucket)].narrow(0, 0, padded);
}

bool ShardedOptimizer::Slots::Take(int64_t bucket) {
  int64_t& holder = holder_[PlaceOf(bucket)];
  if (holder == bucket) return false;
  FT_CHECK(holder < 0);  // Two units of one place at once.
  holder = bucket;
  return true;
}

void ShardedOptimizer::Slots::GiveBack(int64_t bucket) {
  int64_t& holder = holder_[PlaceOf(bucket)];
  FT_CHECK(holder == bucket);
  holder = -1;
}

int64_t ShardedOptimizer::Slots::bytes() const {
  int64_t bytes = 0;
  for (const at::Tensor& place : places_) {
    if (place.defined()) bytes += static_cast<int64_t>(place.nbytes());
  }
  return bytes;
}

ShardedOptimizer::ShardedOptimizer(Partition partition, ZeroOptions options,
                                   Collective& collective)
    : partition_(std::move(partition)),
      options_(options),
      collective_(collective) {
  FT_CHECK(partition_.ranks() == collective.size());
  FT_CHECK(options.zero_stage >= 0 && options.zero_stage <= 3);
  FT_CHECK(options.lanes_per_rank >= 1);
  FT_CHECK(options.moments == MomentFormat::kFp32 || options.zero_stage > 0);
  for (const Fragment& fragment : partition_.fragments()) {
    const bool is_new =
        buckets_of_units_.emplace(fragment.unit, fragment.bucket).second;
    if (std::cmp_equal(fragment.bucket, lowest_units_.size())) {
      lowest_units_.push_back(fragment.unit);
    } else {
      FT_CHECK(!is_new || !shards_parameters());  // A bucket is a unit.
    }
  }
  if (shards_gradients()) gradient_slots_.Allocate(partition_);
  if (shards_parameters()) gather_slots_.Allocate(partition_);
  const size_t buckets = partition_.buckets().size();
  lanes_.resize(buckets);
  earlier_.resize(buckets);
  for (size_t b = 0; b < buckets; ++b) {
    const int64_t padded = partition_.padded_size(b);
    const int64_t shard = partition_.buckets()[b].shard_size;
    parameters_.push_back(at::zeros({shards_parameters() ? shard : padded}));
    gradients_.push_back(shards_gradients() ? gradient_slots_.View(b, padded)
                                            : at::zeros({padded}));
    shard_gradients_.push_back(at::zeros({shard}));
    moments_.emplace_back(partition_, static_cast<int64_t>(b), UpdatedPart(b),
                          options.moments);
  }
}

at::Tensor ShardedOptimizer::ParameterView(size_t index) const {
  const Fragment& fragment = partition_.fragments()[index];
  const at::Tensor whole =
      shards_parameters()
          ? gather_slots_.View(fragment.bucket,
                               partition_.padded_size(fragment.bucket))
          : parameters_[fragment.bucket];
  return whole.narrow(0, fragment.start, fragment.numel);
}

at::Tensor ShardedOptimizer::GradientView(size_t index) const {
  const Fragment& fragment = partition_.fragments()[index];
  return gradients_[fragment.bucket].narrow(0, fragment.start, fragment.numel);
}

void ShardedOptimizer::SetParameter(size_t index,
                                    std::span<const float> values) {
  const Fragment& fragment = partition_.fragments()[index];
  FT_CHECK(std::cmp_equal(values.size(), fragment.numel));
  const Interval held = HeldPart(fragment.bucket);
  const int64_t begin = std::max(held.begin, fragment.start);
  const int64_t end = std::min(held.end, fragment.start + fragment.numel);
  if (begin >= end) return;
  std::ranges::copy(
      values.subspan(begin - fragment.start, end - begin),
      Floats(parameters_[fragment.bucket]).begin() + begin - held.begin);
}

std::optional<int64_t> ShardedOptimizer::BucketOf(int64_t unit) const {
  const auto found = buckets_of_units_.find(unit);
  if (found == buckets_of_units_.end()) return std::nullopt;
  return found->second;
}

absl::Status ShardedOptimizer::GatherUnit(int64_t unit) {
  const std::optional<int64_t> bucket = BucketOf(unit);
  if (!shards_parameters() || !bucket.has_value()) return absl::OkStatus();
  FT_CHECK(gather_slots_.Take(*bucket));
  const at::Tensor whole =
      gather_slots_.View(*bucket, partition_.padded_size(*bucket));
  FT_RETURN_IF_ERROR(collective_.AllGather(Bytes(Floats(whole)),
                                           Bytes(Floats(parameters_[*bucket]))),
                     "gather of the parameters of unit ", unit);
  return absl::OkStatus();
}

void ShardedOptimizer::ReleaseUnit(int64_t unit) {
  const std::optional<int64_t> bucket = BucketOf(unit);
  if (shards_parameters() && bucket.has_value())
    gather_slots_.GiveBack(*bucket);
}

void ShardedOptimizer::BeginBackward(bool is_last_of_lane) {
  FT_CHECK(shards_gradients() && gradient_slots_.is_free());
  is_last_of_lane_ = is_last_of_lane;
}

void ShardedOptimizer::BeginGradients(int64_t unit) {
  const std::optional<int64_t> bucket = BucketOf(unit);
  if (!shards_gradients() || !bucket.has_value()) return;
  if (!gradient_slots_.Take(*bucket)) return;
  // A lane's micro-batches are added one after another, as if their sum had
  // stayed here.
  if (earlier_[*bucket].defined()) {
    gradients_[*bucket].copy_(earlier_[*bucket]);
  }
}

absl::Status ShardedOptimizer::EndGradients(int64_t unit) {
  const std::optional<int64_t> bucket = BucketOf(unit);
  if (!shards_gradients() || !bucket.has_value()) return absl::OkStatus();
  if (unit != lowest_units_[*bucket]) return absl::OkStatus();
  at::Tensor& gradient = gradients_[*bucket];
  if (!is_last_of_lane_) {
    LaneOps::Copy(earlier_[*bucket], gradient);
    gradient.zero_();
  } else if (lanes_taken_ + 1 < options_.lanes_per_rank) {
    lanes_[*bucket].Push(gradient);
    gradient.zero_();
  } else {
    lanes_[*bucket].AddTo(gradient);
    FT_RETURN_IF_ERROR(ReduceBucket(*bucket));
  }
  if (is_last_of_lane_) earlier_[*bucket] = at::Tensor();
  gradient_slots_.GiveBack(*bucket);
  return absl::OkStatus();
}

void ShardedOptimizer::TakeLane() {
  FT_CHECK(lanes_taken_ < options_.lanes_per_rank);
  const bool is_last = ++lanes_taken_ == options_.lanes_per_rank;
  if (shards_gradients()) {
    FT_CHECK(gradient_slots_.is_free());
    return;
  }
  for (size_t b = 0; b < gradients_.size(); ++b) {
    if (is_last) {
      lanes_[b].AddTo(gradients_[b]);
    } else {
      lanes_[b].Push(gradients_[b]);
      gradients_[b].zero_();
    }
  }
}

absl::Status ShardedOptimizer::ReduceScatterRound() {
  FT_CHECK(lanes_taken_ == options_.lanes_per_rank);
  lanes_taken_ = 0;
  for (size_t b = 0; b < gradients_.size() && !shards_gradients(); ++b) {
    FT_RETURN_IF_ERROR(ReduceBucket(static_cast<int64_t>(b)));
  }
  ++rounds_;
  return absl::OkStatus();
}

absl::Status ShardedOptimizer::ReduceBucket(int64_t bucket) {
  const std::span<float> step = Floats(shard_gradients_[bucket]);
  if (rounds_ > 0 && round_.size() < step.size()) round_.resize(step.size());
  const std::span<float> round =
      rounds_ == 0 ? step : std::span(round_).first(step.size());
  FT_RETURN_IF_ERROR(
      collective_.ReduceScatter(round, Floats(gradients_[bucket])),
      "reduce-scatter of gradients");
  for (size_t i = 0; rounds_ > 0 && i < step.size(); ++i) step[i] += round[i];
  gradients_[bucket].zero_();
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

Interval ShardedOptimizer::HeldPart(int64_t bucket) const {
  if (shards_parameters()) return UpdatedPart(bucket);
  return {0, partition_.padded_size(bucket)};
}

absl::Status ShardedOptimizer::GatherShards(int64_t bucket,
                                            std::span<float> whole) {
  const int64_t shard = partition_.buckets()[bucket].shard_size;
  return collective_.AllGather(
      Bytes(whole), Bytes(whole.subspan(collective_.rank() * shard, shard)));
}

absl::Status ShardedOptimizer::GatherParameters() {
  for (size_t b = 0; b < parameters_.size(); ++b) {
    FT_RETURN_IF_ERROR(
        GatherShards(static_cast<int64_t>(b), Floats(parameters_[b])),
        "gather of parameters");
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
  for (size_t index = 0; index < partition_.fragments().size(); ++index) {
    const Fragment& fragment = partition_.fragments()[index];
    const Interval part = UpdatedPart(fragment.bucket);
    const int64_t begin = std::max(part.begin, fragment.start);
    const int64_t end = std::min(part.end, fragment.start + fragment.numel);
    if (begin >= end) continue;
    const size_t size = end - begin, offset = begin - part.begin;
    const size_t held = begin - HeldPart(fragment.bucket).begin;
    const std::span<const float> gradient =
        options_.zero_stage == 0
            ? Floats(gradients_[fragment.bucket]).subspan(begin, size)
            : Floats(shard_gradients_[fragment.bucket]).subspan(offset, size);
    moments_[fragment.bucket].Update(
        index, {begin - fragment.start, end - fragment.start},
        {.learning_rate = learning_rate,
         .beta1 = options_.beta1,
         .beta2 = options_.beta2,
         .eps = options_.eps,
         .weight_decay = fragment.decays ? options_.weight_decay : 0,
         .step = steps_,
         .gradient_scale = clip_factor_},
        Floats(parameters_[fragment.bucket]).subspan(held, size), gradient);
  }
  DropGradients();
  if (options_.zero_stage == 1 || options_.zero_stage == 2) {
    return GatherParameters();
  }
  return absl::OkStatus();
}

void ShardedOptimizer::DropGradients() {
  for (at::Tensor& gradient : gradients_) {
    if (!shards_gradients()) gradient.zero_();  // Else it is.
  }
  for (auto& lanes : lanes_) lanes.Drop();
  lanes_taken_ = 0;
  rounds_ = 0;
  clip_factor_ = 1;
}

int64_t ShardedOptimizer::state_bytes() const {
  int64_t bytes = 0;
  for (const Moments& moments : moments_) bytes += moments.bytes();
  return bytes;
}

int64_t ShardedOptimizer::parameter_bytes() const {
  int64_t bytes = 0;
  for (const at::Tensor& held : parameters_) bytes += held.nbytes();
  return bytes;
}

int64_t ShardedOptimizer::gradient_bytes() const {
  int64_t bytes = gradient_slots_.bytes();
  for (const at::Tensor& shard : shard_gradients_) bytes += shard.nbytes();
  for (const at::Tensor& whole : gradients_) {
    if (!shards_gradients()) bytes += whole.nbytes();
  }
  return bytes;
}

std::vector<StatePiece> ShardedOptimizer::SavePieces() const {
  std::vector<StatePiece> pieces;
  for (size_t index = 0; index < partition_.fragments().size(); ++index) {
    const Fragment& fragment = partition_.fragments()[index];
    const Interval own = partition_.OwnedPart(fragment, collective_.rank());
    if (own.size() == 0) continue;
    const int64_t held =
        fragment.start + own.begin - HeldPart(fragment.bucket).begin;
    pieces.push_back(
        {fragment.name, kMaster, own.begin,
         Bytes(
             Floats(parameters_[fragment.bucket]).subspan(held, own.size()))});
    for (StatePiece& piece : moments_[fragment.bucket].Pieces(index, own)) {
      pieces.push_back(std::move(piece));
    }
  }
  return pieces;
}

template <typename Self>
auto ShardedOptimizer::ShardSpansOf(Self& self) {
  using Byte =
      std::conditional_t<std::is_const_v<Self>, const std::byte, std::byte>;
  std::vector<std::span<Byte>> spans;
  for (size_t b = 0; b < self.parameters_.size(); ++b) {
    const auto bucket = static_cast<int64_t>(b);
    const int64_t size = self.partition_.buckets()[b].shard_size;
    const int64_t begin = self.collective_.rank() * size;
    const auto add = [&](auto values, Interval part) {
      spans.push_back(Bytes(values.subspan(begin - part.begin, size)));
    };
    add(Floats(self.parameters_[b]), self.HeldPart(bucket));
    auto& moments = self.moments_[b];
    if (self.options_.zero_stage == 0) {
      add(moments.exp_avg(), self.UpdatedPart(bucket));
      add(moments.exp_avg_sq(), self.UpdatedPart(bucket));
      continue;
    }
    for (const std::span<Byte> buffer : moments.Buffers()) {
      spans.push_back(buffer);
    }
  }
  return spans;
}

int64_t ShardedOptimizer::shard_bytes() const {
  int64_t bytes = partition_.shard_elements() * sizeof(float);
  if (options_.zero_stage == 0) return 3 * bytes;
  return bytes + state_bytes();
}

void ShardedOptimizer::CopyShard(std::span<std::byte> out) const {
  FT_CHECK(std::cmp_equal(out.size(), shard_bytes()));
  auto to = out.begin();
  for (const std::span<const std::byte> part : ShardSpansOf(*this)) {
    to = std::ranges::copy(part, to).out;
  }
}

absl::Status ShardedOptimizer::RestoreShard(std::span<const std::byte> in) {
  FT_CHECK(std::cmp_equal(in.size(), shard_bytes()));
  for (const std::span<std::byte> part : ShardSpansOf(*this)) {
    std::ranges::copy(in.first(part.size()), part.begin());
    in = in.subspan(part.size());
  }
  if (!shards_parameters()) FT_RETURN_IF_ERROR(GatherParameters());
  if (options_.zero_stage > 0) return absl::OkStatus();
  for (size_t b = 0; b < moments_.size(); ++b) {
    const auto bucket = static_cast<int64_t>(b);
    FT_RETURN_IF_ERROR(GatherShards(bucket, moments_[b].exp_avg()),
                       "gather of exp_avg");
    FT_RETURN_IF_ERROR(GatherShards(bucket, moments_[b].exp_avg_sq()),
                       "gather of exp_avg_sq");
  }
  return absl::OkStatus();
}

std::vector<MomentKind> ShardedOptimizer::KindsOf(
    const Fragment& fragment) const {
  std::vector<MomentKind> kinds = {{kMaster}};
  for (const MomentKind& kind : MomentKinds(options_.moments, fragment.numel)) {
    kinds.push_back(kind);
  }
  return kinds;
}

absl::Status ShardedOptimizer::CheckPieces(const SavedPieces& pieces) const {
  std::set<std::string> known;
  for (const Fragment& fragment : partition_.fragments()) {
    known.insert(fragment.name);
    for (const MomentKind& kind : KindsOf(fragment)) {
      FT_RETURN_IF_ERROR(
          pieces.CheckCover(fragment.name, kind.kind,
                            (fragment.numel + kind.block - 1) / kind.block));
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
  for (size_t index = 0; index < partition_.fragments().size(); ++index) {
    const Fragment& fragment = partition_.fragments()[index];
    const int64_t bucket = fragment.bucket;
    // The fragment's elements that lie in a part of the bucket.
    const auto in = [&](Interval part) {
      const int64_t begin = std::max(part.begin, fragment.start);
      const int64_t end = std::min(part.end, fragment.start + fragment.numel);
      return Interval{begin - fragment.start, end - fragment.start};
    };
    const Interval held = HeldPart(bucket);
    if (const Interval mine = in(held); mine.size() > 0) {
      FT_RETURN_IF_ERROR(pieces.Fill(
          fragment.name, kMaster, mine.begin,
          Bytes(Floats(parameters_[bucket])
                    .subspan(fragment.start + mine.begin - held.begin,
                             mine.size()))));
    }
    if (const Interval mine = in(UpdatedPart(bucket)); mine.size() > 0) {
      FT_RETURN_IF_ERROR(moments_[bucket].Fill(index, mine, pieces));
    }
  }
  return absl::OkStatus();
}

}  // namespace ft
