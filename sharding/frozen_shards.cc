// SPDX-License-Identifier: Apache-2.0

#include "sharding/frozen_shards.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace ft {
namespace {

constexpr int64_t kWord = 4;

int64_t BytesOf(const at::Tensor& tensor) {
  return static_cast<int64_t>(tensor.nbytes());
}

std::span<std::byte> Bytes(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

std::vector<PartitionInput> InputsOf(
    const std::vector<FrozenShards::Weight>& weights) {
  std::vector<PartitionInput> inputs;
  for (const FrozenShards::Weight& weight : weights) {
    const int64_t words = (BytesOf(weight.tensor) + kWord - 1) / kWord;
    inputs.push_back({.name = absl::StrCat(inputs.size()),
                      .shape = {words},
                      .unit = weight.unit});
  }
  return inputs;
}

at::Tensor NewBytes(int64_t bytes) {
  return at::zeros({bytes}, at::TensorOptions().dtype(at::kByte));
}

}  // namespace

FrozenShards::FrozenShards(const std::vector<Weight>& weights,
                           Collective& collective)
    : partition_(InputsOf(weights), collective.size(), /*bucket_elements=*/0),
      collective_(collective) {
  std::array<int64_t, 2> sizes = {0, 0};
  for (size_t b = 0; b < partition_.buckets().size(); ++b) {
    const auto bucket = static_cast<int64_t>(b);
    shards_.push_back(NewBytes(partition_.buckets()[b].shard_size * kWord));
    int64_t& size = sizes[PlaceOf(bucket)];
    size = std::max(size, partition_.padded_size(bucket) * kWord);
  }
  for (size_t i = 0; i < sizes.size(); ++i) places_[i] = NewBytes(sizes[i]);

  for (size_t i = 0; i < weights.size(); ++i) {
    const Fragment& fragment = partition_.fragments()[i];
    const at::Tensor& tensor = weights[i].tensor;
    FT_CHECK(tensor.is_contiguous());
    buckets_of_units_.emplace(fragment.unit, fragment.bucket);
    views_.push_back(places_[PlaceOf(fragment.bucket)]
                         .narrow(0, fragment.start * kWord, BytesOf(tensor))
                         .view(tensor.scalar_type())
                         .view(tensor.sizes()));

    const Interval own = partition_.OwnedPart(fragment, collective.rank());
    const int64_t begin = own.begin * kWord;
    const int64_t end = std::min(own.end * kWord, BytesOf(tensor));
    if (begin >= end) continue;
    const int64_t shard_begin =
        collective.rank() * partition_.buckets()[fragment.bucket].shard_size;
    const int64_t at = (fragment.start + own.begin - shard_begin) * kWord;
    std::ranges::copy(Bytes(tensor).subspan(begin, end - begin),
                      Bytes(shards_[fragment.bucket]).begin() + at);
  }
}

absl::Status FrozenShards::Gather(int64_t unit) {
  const auto found = buckets_of_units_.find(unit);
  if (found == buckets_of_units_.end()) return absl::OkStatus();
  const int64_t bucket = found->second;
  FT_CHECK(holders_[PlaceOf(bucket)] < 0);  // Two units of one place at once.
  holders_[PlaceOf(bucket)] = bucket;
  const size_t padded = partition_.padded_size(bucket) * kWord;
  FT_RETURN_IF_ERROR(
      collective_.AllGather(Bytes(places_[PlaceOf(bucket)]).first(padded),
                            Bytes(shards_[bucket])),
      "gather of the frozen weights of unit ", unit);
  return absl::OkStatus();
}

void FrozenShards::Release(int64_t unit) {
  const auto found = buckets_of_units_.find(unit);
  if (found == buckets_of_units_.end()) return;
  int64_t& holder = holders_[PlaceOf(found->second)];
  FT_CHECK(holder == found->second);
  holder = -1;
}

int64_t FrozenShards::shard_bytes() const {
  int64_t bytes = 0;
  for (const at::Tensor& shard : shards_) bytes += BytesOf(shard);
  return bytes;
}

int64_t FrozenShards::gathered_bytes() const {
  return BytesOf(places_[0]) + BytesOf(places_[1]);
}

}  // namespace ft
