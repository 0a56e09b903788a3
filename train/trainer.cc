// SPDX-License-Identifier: Apache-2.0

#include "train/trainer.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "common/failpoint.h"
#include "common/status.h"

namespace ft {
namespace {

// Adds the time since it was made, or since the last call, to what it is given.
class Stopwatch {
 public:
  void AddTo(double& seconds) {
    const auto now = std::chrono::steady_clock::now();
    seconds += std::chrono::duration<double>(now - since_).count();
    since_ = now;
  }

 private:
  std::chrono::steady_clock::time_point since_ =
      std::chrono::steady_clock::now();
};

// One block of doubles of every rank, by rank.
absl::StatusOr<std::vector<double>> GatherDoubles(
    Collective& ranks, const std::vector<double>& mine) {
  std::vector<double> all(mine.size() * static_cast<size_t>(ranks.size()));
  FT_RETURN_IF_ERROR(
      ranks.AllGather(std::as_writable_bytes(std::span(all)),
                      std::as_bytes(std::span<const double>(mine))));
  return all;
}

}  // namespace

Trainer::Trainer(TrainerConfig config, ShardedModel& model,
                 const Objective& objective, const Loader& loader,
                 Collective& ranks)
    : config_(config),
      model_(model),
      objective_(objective),
      optimizer_(model.optimizer()),
      loader_(loader),
      ranks_(ranks) {}

void Trainer::Resume(int64_t completed_steps, const Cursor& cursor) {
  completed_steps_ = completed_steps;
  cursor_ = cursor;
}

absl::Status Trainer::RunRound(const StepPlan& plan, size_t round,
                               std::vector<double>& lane_losses,
                               StepReport& report) {
  Stopwatch watch;
  // Every rank divides by the targets of all ranks, so that the sum of the
  // lanes' gradients is the gradient of the mean loss, however unevenly the
  // targets lie over lanes and rounds.
  const double scale = 1.0 / static_cast<double>(plan.targets);
  const int64_t first_lane = ranks_.rank() * config_.lanes_per_rank;
  for (int64_t lane = 0; lane < config_.lanes_per_rank; ++lane) {
    const NoiseKey noise{.seed = config_.seed,
                         .step = completed_steps_,
                         .round = static_cast<int64_t>(round),
                         .lane = first_lane + lane};
    FT_RETURN_IF_ERROR(
        RunLane(plan.rounds[round][lane], plan.most_batches[round], scale,
                config_.has_dropout ? &noise : nullptr, lane_losses[lane]));
    // Takes the gradient out before the next lane adds to it: the lanes of all
    // ranks are summed by one fixed tree, so that the bits do not depend on how
    // many ranks there are.
    optimizer_.TakeLane();
  }
  watch.AddTo(report.forward_backward_seconds);
  Pass(Failpoint::kReduceBegins);
  FT_RETURN_IF_ERROR(optimizer_.ReduceScatterRound());
  Pass(Failpoint::kReduced);
  watch.AddTo(report.reduce_seconds);
  return absl::OkStatus();
}

// `passes`: how many the rank with the most micro-batches makes. Where ranks
// exchange in a pass, each makes as many.
absl::Status Trainer::RunLane(const std::vector<MicroBatch>& batches,
                              int64_t passes, double scale,
                              const NoiseKey* noise, double& loss) {
  const auto own = static_cast<int64_t>(batches.size());
  if (!model_.is_in_step()) passes = own;
  for (int64_t pass = 0; pass < passes; ++pass) {
    model_.BeginPass(/*is_last_of_lane=*/pass + 1 == passes);
    if (pass >= own || batches[pass].rows.empty()) {
      FT_RETURN_IF_ERROR(model_.PassWithoutTokens(/*and_back=*/true));
      continue;
    }
    const at::Tensor sum =
        objective_.Sum(model_.model(), batches[pass], scale, noise, nullptr);
    sum.backward();
    loss += sum.item<double>();
    FT_RETURN_IF_ERROR(model_.status());
  }
  return absl::OkStatus();
}

absl::StatusOr<StepReport> Trainer::Step(const RankRequests& requests,
                                         int64_t sealed_step) {
  Pass(Failpoint::kStepBegins);
  Stopwatch watch;
  const StepPlan plan = loader_.Plan(cursor_);
  if (plan.targets == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("no token has a target after step ", completed_steps_));
  }
  StepReport report{.step = completed_steps_ + 1,
                    .learning_rate = config_.schedule.At(completed_steps_),
                    .targets = plan.targets,
                    .tokens = plan.tokens};
  watch.AddTo(report.data_seconds);

  // What a rank is asked for travels with the losses: one gather a step.
  std::vector<double> mine(static_cast<size_t>(config_.lanes_per_rank));
  for (size_t round = 0; round < plan.rounds.size(); ++round) {
    FT_RETURN_IF_ERROR(RunRound(plan, round, mine, report));
  }
  for (const bool request :
       {requests.checkpoint, requests.yield, requests.stop}) {
    mine.push_back(request ? 1 : 0);
  }
  mine.push_back(static_cast<double>(sealed_step));
  FT_ASSIGN_OR_RETURN(const std::vector<double> all,
                      GatherDoubles(ranks_, mine), "gather of losses");
  for (int rank = 0; rank < ranks_.size(); ++rank) {
    const double* block = all.data() + rank * mine.size();
    for (int64_t lane = 0; lane < config_.lanes_per_rank; ++lane) {
      report.loss += *block++;
    }
    report.requests.checkpoint |= *block++ != 0;
    report.requests.yield |= *block++ != 0;
    report.requests.stop |= *block++ != 0;
    const auto sealed = static_cast<int64_t>(*block++);
    report.sealed_step =
        rank == 0 ? sealed : std::min(report.sealed_step, sealed);
  }

  FT_ASSIGN_OR_RETURN(report.grad_norm,
                      optimizer_.ClipGradients(config_.max_grad_norm));
  if (!std::isfinite(report.loss) || !std::isfinite(report.grad_norm)) {
    optimizer_.DropGradients();
    report.verdict = StepVerdict::kNonFinite;
    return report;
  }
  watch = Stopwatch();
  Pass(Failpoint::kUpdateBegins);
  FT_RETURN_IF_ERROR(optimizer_.Update(report.learning_rate));
  Pass(Failpoint::kUpdated);
  watch.AddTo(report.update_seconds);
  ++completed_steps_;
  cursor_ = plan.after;
  return report;
}

absl::Status Trainer::EvaluateLane(const std::vector<MicroBatch>& batches,
                                   int64_t passes, double& sum) {
  const auto own = static_cast<int64_t>(batches.size());
  if (!model_.is_in_step()) passes = own;
  for (int64_t pass = 0; pass < passes; ++pass) {
    if (pass >= own || batches[pass].rows.empty()) {
      FT_RETURN_IF_ERROR(model_.PassWithoutTokens(/*and_back=*/false));
      continue;
    }
    std::vector<double> nll;
    objective_.Sum(model_.model(), batches[pass], 1, nullptr, &nll);
    for (const double loss : nll) sum += loss;
    FT_RETURN_IF_ERROR(model_.status());
  }
  return absl::OkStatus();
}

absl::StatusOr<double> Trainer::Evaluate(const Loader& loader) {
  c10::NoGradGuard no_grad;
  // One plan a step of the loader, so that only one is in memory; sums stay
  // apart by round and lane and are added in that order on every rank.
  double sum = 0;
  int64_t targets = 0;
  Cursor cursor;
  while (cursor.pass == 0) {
    const StepPlan plan = loader.Plan(cursor);
    std::vector<double> mine;
    for (size_t round = 0; round < plan.rounds.size(); ++round) {
      for (const std::vector<MicroBatch>& lane : plan.rounds[round]) {
        FT_RETURN_IF_ERROR(
            EvaluateLane(lane, plan.most_batches[round], mine.emplace_back(0)));
      }
    }
    FT_ASSIGN_OR_RETURN(const std::vector<double> all,
                        GatherDoubles(ranks_, mine), "gather of losses");
    const size_t per_rank = static_cast<size_t>(config_.lanes_per_rank);
    for (size_t round = 0; round < plan.rounds.size(); ++round) {
      for (int rank = 0; rank < ranks_.size(); ++rank) {
        for (size_t lane = 0; lane < per_rank; ++lane) {
          sum += all[rank * mine.size() + round * per_rank + lane];
        }
      }
    }
    targets += plan.targets;
    cursor = plan.after;
  }
  if (targets == 0) {
    return absl::InvalidArgumentError("the validation data have no target");
  }
  return sum / static_cast<double>(targets);
}

}  // namespace ft
