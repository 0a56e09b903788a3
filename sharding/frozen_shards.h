// SPDX-License-Identifier: Apache-2.0
//
// What does not learn, divided over the ranks (stage 3): a rank keeps its shard
// of each unit's bytes, and a unit is gathered before its use. Bytes are moved
// as they are, whatever their type.
//
// Two units lie in memory at most: the first unit that has weights (the
// embedding, which a tied head reads while other units are at work) has a place
// of its own, all others share one.

#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "collective/collective.h"
#include "sharding/partition.h"

namespace ft {

// Not thread-safe. Calls that return a status are collective: every rank makes
// them in the same order.
class FrozenShards {
 public:
  struct Weight {
    int64_t unit = 0;
    at::Tensor tensor;  // Contiguous.
  };

  // Copies this rank's shard of `weights`, which are in forward order and the
  // same on all ranks, and reads them no more. `collective` must outlive it.
  FrozenShards(const std::vector<Weight>& weights, Collective& collective);

  // Where weight `index` lies while its unit is gathered.
  at::Tensor View(size_t index) const { return views_[index]; }

  // Brings the weights of `unit` together, until Release.
  absl::Status Gather(int64_t unit);
  void Release(int64_t unit);

  // Bytes that stay, and of the places of gathered units.
  int64_t shard_bytes() const;
  int64_t gathered_bytes() const;

 private:
  size_t PlaceOf(int64_t bucket) const { return bucket == 0 ? 0 : 1; }

  const Partition partition_;  // In words of 4 bytes; a bucket is a unit.
  Collective& collective_;
  std::map<int64_t, int64_t> buckets_of_units_;
  std::vector<at::Tensor> shards_;    // By bucket, bytes.
  std::array<at::Tensor, 2> places_;  // Bytes.
  std::array<int64_t, 2> holders_ = {-1, -1};
  std::vector<at::Tensor> views_;
};

}  // namespace ft
