// SPDX-License-Identifier: Apache-2.0
//
// The step: rounds of micro-batches, lane by lane, then one update. It knows no
// job file and no names; train/assemble.cc puts it together.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "collective/collective.h"
#include "data/loader.h"
#include "train/learning_rate.h"
#include "train/link.h"
#include "train/objective.h"
#include "train/sharded_model.h"

namespace ft {

struct TrainerConfig {
  int64_t lanes = 1;
  int64_t lanes_per_rank = 1;
  double max_grad_norm = 1;
  uint64_t seed = 0;
  bool has_dropout = false;
  LearningRateSchedule schedule;
};

// What a step did; the same on every rank.
enum class StepVerdict {
  kUpdated,
  kNonFinite,  // The loss or the gradient; no parameter has changed.
};

struct StepReport {
  StepVerdict verdict = StepVerdict::kUpdated;
  int64_t step = 0;
  double loss = 0;
  double grad_norm = 0;
  double learning_rate = 0;
  int64_t targets = 0;
  int64_t tokens = 0;
  // Seconds of the parts of the step on this rank.
  double data_seconds = 0, forward_backward_seconds = 0, reduce_seconds = 0,
         update_seconds = 0;
  // Whether any rank was asked for it; every rank sees the same.
  RankRequests requests;
  // The newest step whose local snapshot every rank had sealed.
  int64_t sealed_step = 0;
};

// Not thread-safe.
class Trainer {
 public:
  // All must outlive it.
  Trainer(TrainerConfig config, ShardedModel& model, const Objective& objective,
          const Loader& loader, Collective& ranks);

  // Takes one optimizer step. Collective: every rank must call it. `requests`
  // and `sealed_step`, its newest sealed snapshot, are this rank's own.
  //
  //   INVALID_ARGUMENT  no token of the step has a target: the same on every
  //                     rank, and no parameter has changed.
  // Any other error may be this rank's alone while the others wait in a
  // collective: the caller must end the process, and the daemon the attempt.
  absl::StatusOr<StepReport> Step(const RankRequests& requests,
                                  int64_t sealed_step);

  // Mean loss over all targets of `loader`'s data in one walk. Collective.
  absl::StatusOr<double> Evaluate(const Loader& loader);

  int64_t completed_steps() const { return completed_steps_; }
  const Cursor& cursor() const { return cursor_; }

  // Goes on from a checkpoint.
  void Resume(int64_t completed_steps, const Cursor& cursor);

 private:
  absl::Status RunRound(const StepPlan& plan, size_t round,
                        std::vector<double>& lane_losses, StepReport& report);
  absl::Status RunLane(const std::vector<MicroBatch>& batches, int64_t passes,
                       double scale, const NoiseKey* noise, double& loss);
  absl::Status EvaluateLane(const std::vector<MicroBatch>& batches,
                            int64_t passes, double& sum);

  const TrainerConfig config_;
  ShardedModel& model_;
  const Objective& objective_;
  ShardedOptimizer& optimizer_;
  const Loader& loader_;
  Collective& ranks_;
  int64_t completed_steps_ = 0;
  Cursor cursor_;
};

}  // namespace ft
