// SPDX-License-Identifier: Apache-2.0
//
// A model whose state is divided over the ranks: the units of model/ and the
// shards of sharding/, which do not know each other, meet here.
//
// What is divided at stage 3 is all that does not learn and all that does, but
// for adapters whose units are small: those stay whole, and their gradients and
// optimizer state are divided all the same.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "collective/collective.h"
#include "model/transformer.h"
#include "sharding/frozen_shards.h"
#include "sharding/zero.h"

namespace ft {

struct ShardingOptions {
  ZeroOptions zero;
  // At stage 3 they are, whatever this says.
  bool recomputes_blocks = false;
  int64_t bucket_elements = kBucketElements;
};

// Not thread-safe. Calls that return a status are collective where state is
// divided.
class ShardedModel : private UnitHooks {
 public:
  // Takes what learns, and at stage 3 what does not, into flat buffers of its
  // own. Both must outlive it, and every graph of the model must end before it.
  ShardedModel(Transformer& model, const ShardingOptions& options,
               Collective& collective);

  Transformer& model() { return model_; }
  ShardedOptimizer& optimizer() { return optimizer_; }
  const ShardedOptimizer& optimizer() const { return optimizer_; }

  // Whether a pass over the model exchanges something, so that every rank must
  // make as many of them as the others.
  bool is_in_step() const { return zero_stage_ >= 2; }

  // Before each pass forward and back: whether it is the last of its lane.
  void BeginPass(bool is_last_of_lane);

  // A pass without a token, for a rank that has none where others have.
  absl::Status PassWithoutTokens(bool and_back);

  // Calls `visit` for each unit while its weights are at hand, in forward
  // order.
  absl::Status ForEachUnit(const std::function<void(int64_t unit)>& visit);

  // What went wrong in a pass: the first error stays, and what was computed
  // after it means nothing.
  const absl::Status& status() const { return status_; }

  // Bytes that the frozen weights take: shards and the places of gathered
  // units; 0 where they are not divided.
  int64_t frozen_bytes() const;

 private:
  void Acquire(int64_t unit) override;
  void Release(int64_t unit) override;
  void BeginGradients(int64_t unit) override;
  void EndGradients(int64_t unit) override;

  Transformer& model_;
  const int zero_stage_;
  ShardedOptimizer optimizer_;
  std::unique_ptr<FrozenShards> frozen_;  // Null: every rank has them.
  absl::Status status_;
};

}  // namespace ft
