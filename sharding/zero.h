// SPDX-License-Identifier: Apache-2.0
//
// ZeRO (arXiv:1910.02054): optimizer state, and later gradients and parameters,
// divided over the ranks. One class; the stage is its parameter.
//
//   stage 0   every rank holds all state;  reduce-scatter each round, then
//             gather of gradients
//   stage 1   a rank holds the state of its shard;  reduce-scatter each round,
//             then gather of the updated parameters
//
// Gradients are added in one fixed order: the lanes of a round by the aligned
// tree, then the rounds in sequence. Bits are therefore equal over stages and,
// with a power of two of lanes a rank, over numbers of ranks.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "collective/collective.h"
#include "sharding/lane_carry.h"
#include "sharding/partition.h"
#include "sharding/shard_state.h"

namespace ft {

struct ZeroOptions {
  int zero_stage = 1;  // 0 or 1.
  int64_t lanes_per_rank = 1;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
};

// Not thread-safe. Calls that return a status are collective: every rank makes
// them in the same order.
class ShardedOptimizer {
 public:
  // `collective` must outlive it. REQUIRES: partition.ranks() ==
  // collective.size(), zero_stage in {0, 1}
  ShardedOptimizer(Partition partition, ZeroOptions options,
                   Collective& collective);

  const Partition& partition() const { return partition_; }

  // Views of fragment `index` in the flat buffers, 1-D: the parameter lives and
  // learns in the first; its gradient is added up in the second.
  at::Tensor ParameterView(size_t index) const;
  at::Tensor GradientView(size_t index) const;

  // Takes the gradient of the next lane. Called once for each lane of this rank
  // in a round, in order. The gradient buffers are zero after it, but for the
  // last lane's: they are the round's sum until ReduceScatterRound, which must
  // come next.
  void TakeLane();

  // Sums the lanes of all ranks and adds them to the gradient of the step; the
  // gradient buffers are zero after it. REQUIRES: every lane was taken
  absl::Status ReduceScatterRound();

  // The L2 norm of the step's gradient, equal on all ranks; remembers the
  // factor that brings it down to `max_norm` (0: never).
  absl::StatusOr<double> ClipGradients(double max_norm);

  // One AdamW step, then the gather; every rank holds the new parameters.
  absl::Status Update(double learning_rate);

  // Forgets the step's gradient; no parameter has changed.
  void DropGradients();

  // Optimizer steps so far.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

  // Bytes of optimizer state on this rank: exp_avg and exp_avg_sq.
  int64_t state_bytes() const;

  // This rank's share of parameters and state, by name. The spans live until
  // the next Update.
  std::vector<StatePiece> SavePieces() const;

  // The same as flat numbers, for one layout and one rank: parameters, exp_avg
  // and exp_avg_sq of this rank's shard of each bucket, padding included.
  int64_t shard_numel() const;
  // REQUIRES: out.size() == shard_numel()
  void CopyShard(std::span<float> out) const;
  // Takes back what CopyShard gave on every rank. Collective.
  // REQUIRES: in.size() == shard_numel()
  absl::Status RestoreShard(std::span<const float> in);

  // Fills all parameters and this rank's state from the pieces of a checkpoint
  // of any number of ranks, any stage and any buckets. Not collective. On error
  // nothing has changed.
  // DATA_LOSS: an element is missing or covered twice, or a tensor has another
  // size. FAILED_PRECONDITION: a tensor is not among the parameters.
  absl::Status LoadPieces(const SavedPieces& pieces);

 private:
  // What this rank updates: the bucket's elements [begin, begin + size).
  Interval UpdatedPart(int64_t bucket) const;
  // Every rank's shard of the buffers to all ranks.
  absl::Status GatherShards(const std::vector<at::Tensor>& buffers);
  // This rank's shard of each buffer of parameters and state, in the order of
  // CopyShard.
  std::vector<std::span<float>> ShardSpans() const;
  absl::Status CheckPieces(const SavedPieces& pieces) const;

  const Partition partition_;
  const ZeroOptions options_;
  Collective& collective_;
  // One a bucket, padded size.
  std::vector<at::Tensor> parameters_, gradients_;
  // One a bucket, this rank's shard: the sum of the rounds so far.
  std::vector<at::Tensor> shard_gradients_;
  // One a bucket: all of it at stage 0, the shard at stage 1.
  std::vector<at::Tensor> exp_avg_, exp_avg_sq_;

  using Buffers = std::vector<at::Tensor>;
  struct LaneOps {
    static void Copy(Buffers& into, const Buffers& from);
    static void Add(Buffers& into, const Buffers& from);
  };
  LaneCarry<Buffers, LaneOps> lanes_;
  int64_t lanes_taken_ = 0;
  std::vector<float> round_;  // The shard of a later round, before it is added.
  int64_t rounds_ = 0;
  double clip_factor_ = 1;
  int64_t steps_ = 0;
};

}  // namespace ft
