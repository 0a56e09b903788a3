// SPDX-License-Identifier: Apache-2.0

#include "sharding/partition.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/digest.h"

namespace ft {
namespace {

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

int64_t NumelOf(const std::vector<int64_t>& shape) {
  int64_t numel = 1;
  for (const int64_t dim : shape) numel *= dim;
  return numel;
}

}  // namespace

Partition::Partition(const std::vector<PartitionInput>& inputs, int ranks,
                     int64_t bucket_elements, int64_t fragment_align)
    : ranks_(ranks) {
  FT_CHECK(ranks >= 1);
  FT_CHECK(kShardAlign % fragment_align == 0);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const PartitionInput& input = inputs[i];
    const bool begins_unit = i == 0 || inputs[i - 1].unit != input.unit;
    if (begins_unit &&
        (buckets_.empty() || buckets_.back().used >= bucket_elements)) {
      buckets_.emplace_back();
    }
    Bucket& bucket = buckets_.back();
    bucket.used =
        RoundUp(bucket.used, begins_unit ? kShardAlign : fragment_align);
    Fragment fragment{.name = input.name,
                      .shape = input.shape,
                      .unit = input.unit,
                      .decays = input.decays,
                      .bucket = static_cast<int64_t>(buckets_.size()) - 1,
                      .start = bucket.used,
                      .numel = NumelOf(input.shape)};
    bucket.used += fragment.numel;
    fragments_.push_back(std::move(fragment));
  }
  for (Bucket& bucket : buckets_) {
    bucket.shard_size = RoundUp(bucket.used, ranks * kShardAlign) / ranks;
  }
}

int64_t Partition::shard_elements() const {
  int64_t sum = 0;
  for (const Bucket& bucket : buckets_) sum += bucket.shard_size;
  return sum;
}

Interval Partition::OwnedPart(const Fragment& fragment, int rank) const {
  const int64_t shard = buckets_[fragment.bucket].shard_size;
  const int64_t begin = std::max(rank * shard, fragment.start);
  const int64_t end =
      std::min((rank + 1) * shard, fragment.start + fragment.numel);
  if (begin >= end) return {};
  return {begin - fragment.start, end - fragment.start};
}

std::string Partition::Digest() const {
  Sha256 sha;
  sha.Update(absl::StrCat("ranks ", ranks_, "\n"));
  for (const Bucket& bucket : buckets_) {
    sha.Update(
        absl::StrCat("bucket ", bucket.used, " ", bucket.shard_size, "\n"));
  }
  for (const Fragment& fragment : fragments_) {
    sha.Update(absl::StrCat(fragment.name, " [",
                            absl::StrJoin(fragment.shape, ","), "] ",
                            fragment.unit, " ", fragment.decays, " ",
                            fragment.bucket, " ", fragment.start, "\n"));
  }
  return sha.FinishHex();
}

}  // namespace ft
