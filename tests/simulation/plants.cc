// SPDX-License-Identifier: Apache-2.0
//
// The planted bugs, at the border of the core: what goes in, what comes out.

#include <csignal>
#include <utility>

#include "tests/simulation/world.h"

namespace ft::testing {
namespace {

template <typename Type, typename Is>
void Drop(Decision& decision, const Is& is) {
  std::erase_if(decision.records, [&](const Record& record) {
    const auto* what = std::get_if<Type>(&record);
    return what != nullptr && is(*what);
  });
}

constexpr auto kAll = [](const auto&) { return true; };

}  // namespace

// Returns whether the command is swallowed.
bool World::TamperCommand(Command& command) {
  if (options_.plant == Plant::kStaleEpochAccepted) {
    auto* commit = std::get_if<CommitArtifactCommand>(&command.what);
    if (commit == nullptr) return false;
    const auto live = core_->FindLive(commit->commit.job_id());
    if (!live.has_value() || live->status().attempts().empty()) return false;
    const uint64_t epoch = live->status().attempts().rbegin()->epoch();
    commit->commit.set_epoch(epoch);
    commit->manifest.set_epoch(epoch);
    return false;
  }
  auto* said = std::get_if<WorkerCommand>(&command.what);
  if (said == nullptr || !said->message.has_attempt_update()) return false;
  v1::AttemptUpdate& update = *said->message.mutable_attempt_update();
  if (options_.plant == Plant::kKillCountsAsCrash && update.has_ended() &&
      update.ended().signal() == SIGKILL) {
    update.mutable_ended()->set_signal(SIGSEGV);
  }
  const bool is_early =
      (options_.plant == Plant::kBarrierOpensEarly &&
       update.has_rank_ready()) ||
      (options_.plant == Plant::kPublishesEarly && update.has_ranks_done());
  if (!is_early) return false;
  // As if each of the other members had said it too.
  const auto live = core_->FindLive(update.job_id());
  if (!live.has_value()) return false;
  for (const v1::Attempt& attempt : live->status().attempts()) {
    if (attempt.epoch() != update.epoch()) continue;
    for (const v1::RankPlacement& rank : attempt.placement().ranks()) {
      WorkerCommand other = *said;
      const FleetWorker* worker = core_->fleet().Find(rank.worker_id());
      if (worker == nullptr || worker->session == said->session) continue;
      other.session = worker->session;
      v1::AttemptUpdate& copy = *other.message.mutable_attempt_update();
      if (copy.has_rank_ready()) {
        copy.mutable_rank_ready()->set_rank(rank.rank());
      }
      if (other.session == 0) continue;
      waiting_.push_back(core_->Apply({.what = std::move(other)}, Wall()));
    }
  }
  return false;
}

void World::TamperDecision(const Command& command, Decision& decision) {
  switch (options_.plant) {
    case Plant::kEpochNotDurable:
      return Drop<PutLastEpoch>(decision, kAll);
    case Plant::kReplyNotStored:
      return Drop<PutReply>(decision, kAll);
    case Plant::kEventLost:
      return Drop<AppendEvent>(decision, [](const AppendEvent& append) {
        const auto to = append.event.fields().find("to");
        return to != append.event.fields().end() && to->second == "RECOVERING";
      });
    case Plant::kEndOfAttemptNotStored:
      return Drop<PutAttempt>(decision, [](const PutAttempt& put) {
        return put.attempt.state() == v1::ATTEMPT_STATE_ENDED;
      });
    case Plant::kJobRowNotStored:
      return Drop<PutJob>(decision, [](const PutJob& put) {
        return put.job.status().state() == v1::JOB_STATE_YIELDING;
      });
    case Plant::kSpoolMarkNotStored:
      return Drop<PutSpoolMark>(decision, kAll);
    case Plant::kQuarantineNotStored:
      return Drop<PutWorker>(decision, kAll);
    case Plant::kDurableStepGoesBack: {
      const auto* commit = std::get_if<CommitArtifactCommand>(&command.what);
      if (commit == nullptr ||
          commit->manifest.kind() != v1::ARTIFACT_KIND_CHECKPOINT) {
        return;
      }
      for (Record& record : decision.records) {
        if (auto* put = std::get_if<PutJob>(&record)) {
          put->job.mutable_status()->set_checkpoint_step(
              commit->manifest.step());
        }
      }
      return;
    }
    case Plant::kStaleRanksAreValid: {
      const auto* said = std::get_if<WorkerCommand>(&command.what);
      if (said == nullptr) return;
      for (Effect& effect : decision.effects) {
        auto* order = std::get_if<ToWorker>(&effect);
        if (order == nullptr) continue;
        if (order->message.has_heartbeat_reply()) {
          *order->message.mutable_heartbeat_reply()->mutable_valid_epochs() =
              said->message.heartbeat().epochs();
        }
      }
      // Nor does it fence what attaches.
      std::erase_if(decision.effects, [](const Effect& effect) {
        const auto* order = std::get_if<ToWorker>(&effect);
        return order != nullptr && order->message.has_fence();
      });
      return;
    }
    default:
      return;
  }
}

}  // namespace ft::testing
