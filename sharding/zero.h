// SPDX-License-Identifier: Apache-2.0
//
// ZeRO (arXiv:1910.02054): optimizer state, gradients and parameters divided
// over the ranks. One class; the stage is its parameter.
//
//   stage 0   every rank holds all state;  reduce-scatter each round, then
//             gather of gradients
//   stage 1   a rank holds the state of its shard;  reduce-scatter each round,
//             then gather of the updated parameters
//   stage 2   and the gradients of its shard;  a bucket is reduced as soon as
//             its last unit has its gradients, in the backward pass
//   stage 3   and the parameters of its shard;  a unit is gathered before its
//             use, twice a micro-batch where blocks are recomputed
//
// From stage 2 on the gradients of two buckets lie in memory at most, at stage
// 3 the parameters of two: bucket 0 has a place of its own, since a tied head
// reads the embedding while other units are at work.
//
// Gradients are added in one fixed order: the lanes of a round by the aligned
// tree, then the rounds in sequence. Bits are therefore equal over stages and,
// with a power of two of lanes a rank, over numbers of ranks.

#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "collective/collective.h"
#include "sharding/lane_carry.h"
#include "sharding/moments.h"
#include "sharding/partition.h"
#include "sharding/shard_state.h"

namespace ft {

struct ZeroOptions {
  int zero_stage = 1;  // 0 to 3.
  int64_t lanes_per_rank = 1;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  // k8Bit: from stage 1 on, with tensors that begin at kDynamicBlock.
  MomentFormat moments = MomentFormat::kFp32;
};

// Not thread-safe. Calls that return a status are collective: every rank makes
// them in the same order.
class ShardedOptimizer {
 public:
  // `collective` must outlive it. REQUIRES: partition.ranks() ==
  // collective.size(), zero_stage in [0, 3]; at stage 3 a bucket is a unit
  ShardedOptimizer(Partition partition, ZeroOptions options,
                   Collective& collective);
  // Its moments refer to its partition.
  ShardedOptimizer(const ShardedOptimizer&) = delete;
  ShardedOptimizer& operator=(const ShardedOptimizer&) = delete;

  const Partition& partition() const { return partition_; }

  // Views of fragment `index` in the flat buffers, 1-D: the parameter lives and
  // learns in the first, at stage 3 between GatherUnit and ReleaseUnit of its
  // unit; its gradient is added up in the second, from stage 2 on between
  // BeginGradients and EndGradients.
  at::Tensor ParameterView(size_t index) const;
  at::Tensor GradientView(size_t index) const;

  // Gives fragment `index` its values: every rank has the same ones.
  // REQUIRES: values.size() is that of the fragment
  void SetParameter(size_t index, std::span<const float> values);

  // Stage 3: brings the parameters of the unit together, until ReleaseUnit.
  // Before, nothing.
  absl::Status GatherUnit(int64_t unit);
  void ReleaseUnit(int64_t unit);

  // From stage 2 on, before each backward pass: whether it is the last of its
  // lane.
  void BeginBackward(bool is_last_of_lane);

  // From stage 2 on: the unit's gradients are about to be added up, and are
  // complete. Units come in descending order in between; where one is begun
  // again it is ended once. EndGradients reduces what is complete.
  void BeginGradients(int64_t unit);
  absl::Status EndGradients(int64_t unit);

  // Takes the gradient of the next lane. Called once for each lane of this rank
  // in a round, in order. The gradient buffers are zero after it, but for the
  // last lane's: they are the round's sum until ReduceScatterRound, which must
  // come next. From stage 2 on its gradient was taken bucket by bucket.
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
  // Bytes of parameters that stay, and of the places of gathered ones.
  int64_t parameter_bytes() const;
  int64_t gathered_bytes() const { return gather_slots_.bytes(); }
  // Bytes of gradients: of the step, and of those that are added up.
  int64_t gradient_bytes() const;

  // The kinds of state of a fragment, the parameter's first.
  std::vector<MomentKind> KindsOf(const Fragment& fragment) const;

  // This rank's share of parameters and state, by name. The spans live until
  // the next Update.
  std::vector<StatePiece> SavePieces() const;

  // The same as flat bytes, for one layout and one rank: parameters and moments
  // of this rank's shard of each bucket, padding included.
  int64_t shard_bytes() const;
  // REQUIRES: out.size() == shard_bytes()
  void CopyShard(std::span<std::byte> out) const;
  // Takes back what CopyShard gave on every rank. Collective.
  // REQUIRES: in.size() == shard_bytes()
  absl::Status RestoreShard(std::span<const std::byte> in);

  // Fills all parameters and this rank's state from the pieces of a checkpoint
  // of any number of ranks, any stage and any buckets. Not collective. On error
  // nothing has changed.
  // DATA_LOSS: an element is missing or covered twice, or a tensor has another
  // size. FAILED_PRECONDITION: a tensor is not among the parameters.
  absl::Status LoadPieces(const SavedPieces& pieces);

 private:
  // Two places for buffers that come and go: one for bucket 0, one that all
  // others share, each as large as the largest that lies there.
  class Slots {
   public:
    // REQUIRES: once, before View.
    void Allocate(const Partition& partition);
    // Where bucket `bucket` lies. REQUIRES: Allocate
    at::Tensor View(int64_t bucket, int64_t padded) const;
    // A place holds one bucket at a time; of it, one user. False: it was held
    // by this bucket already.
    bool Take(int64_t bucket);
    void GiveBack(int64_t bucket);
    bool is_free() const { return holder_[0] < 0 && holder_[1] < 0; }
    int64_t bytes() const;

   private:
    static size_t PlaceOf(int64_t bucket) { return bucket == 0 ? 0 : 1; }
    std::array<at::Tensor, 2> places_;
    std::array<int64_t, 2> holder_ = {-1, -1};
  };

  bool shards_gradients() const { return options_.zero_stage >= 2; }
  bool shards_parameters() const { return options_.zero_stage == 3; }
  // What this rank updates: the bucket's elements [begin, begin + size).
  Interval UpdatedPart(int64_t bucket) const;
  // The elements of a bucket that `parameters_` has.
  Interval HeldPart(int64_t bucket) const;
  std::optional<int64_t> BucketOf(int64_t unit) const;
  absl::Status ReduceBucket(int64_t bucket);
  // Every rank's shard of a whole bucket to all ranks.
  absl::Status GatherShards(int64_t bucket, std::span<float> whole);
  absl::Status GatherParameters();
  // This rank's shard of parameters and state, in the order of CopyShard.
  template <typename Self>
  static auto ShardSpansOf(Self& self);
  absl::Status CheckPieces(const SavedPieces& pieces) const;

  const Partition partition_;
  const ZeroOptions options_;
  Collective& collective_;
  // One a bucket: all of it, at stage 3 the shard.
  std::vector<at::Tensor> parameters_;
  // One a bucket, padded size; from stage 2 on views of a place.
  std::vector<at::Tensor> gradients_;
  Slots gradient_slots_, gather_slots_;
  // By unit that learns: its bucket. By bucket: its lowest unit.
  std::map<int64_t, int64_t> buckets_of_units_;
  std::vector<int64_t> lowest_units_;
  // One a bucket, this rank's shard: the sum of the rounds so far.
  std::vector<at::Tensor> shard_gradients_;
  // One a bucket: of all of it at stage 0, else of the shard.
  std::vector<Moments> moments_;

  struct LaneOps {
    static void Copy(at::Tensor& into, const at::Tensor& from);
    static void Add(at::Tensor& into, const at::Tensor& from);
  };
  // One a bucket.
  std::vector<LaneCarry<at::Tensor, LaneOps>> lanes_;
  // From stage 2 on: the earlier micro-batches of the lane, where it has
  // several. Undefined: none.
  std::vector<at::Tensor> earlier_;
  bool is_last_of_lane_ = true;
  int64_t lanes_taken_ = 0;
  std::vector<float> round_;  // The shard of a later round, before it is added.
  int64_t rounds_ = 0;
  double clip_factor_ = 1;
  int64_t steps_ = 0;
};

}  // namespace ft
