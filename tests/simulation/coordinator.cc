// SPDX-License-Identifier: Apache-2.0
//
// The coordinator of a simulation: the core, and the committer's rules.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/dropped_decision.h"
#include "tests/simulation/world.h"

namespace ft::testing {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(300);

}  // namespace

void World::StartCoordinator() {
  ++life_;
  Note(absl::StrCat("coordinator starts, life ", life_));
  core_ = std::make_unique<Core>(timers_, store_.Load().value(), Wall());
  waiting_.clear();
  commit_planned_ = false;
  const int life = life_;
  In(kTick, [this, life] {
    if (life == life_) Tick();
  });
}

// What it decided and did not commit is lost; so are the streams.
void World::CrashCoordinator() {
  if (core_ == nullptr) return;
  Note("coordinator is killed");
  core_.reset();
  ++life_;
  waiting_.clear();
  callers_.clear();
  worker_of_.clear();
  for (auto& worker : workers_) {
    if (worker->session != 0) ReattachSoon(*worker);
  }
  In(Between(absl::Milliseconds(50), absl::Seconds(Chance(0.1) ? 40 : 3)),
     [this] { StartCoordinator(); });
}

void World::Tick() {
  const int life = life_;
  if (now_ >= paused_until_) {
    Post({.what = TickCommand{}});
    if (core_ != nullptr && waiting_.empty()) {
      rules_.OnIdle(core_->fleet());
    }
  }
  const absl::Time next = std::max(now_ + kTick, paused_until_);
  At(next, [this, life] {
    if (life == life_ && core_ != nullptr) Tick();
  });
}

void World::Post(Command command) {
  if (core_ == nullptr) return;
  if (now_ < paused_until_) {
    const int life = life_;
    return At(paused_until_, [this, life, command = std::move(command)] {
      if (life == life_) Post(command);
    });
  }
  Decision decision = Apply(std::move(command));
  if (options_.plant == Plant::kEffectsBeforeCommit) {
    for (const Effect& effect : decision.effects) Release(effect);
    decision.effects.clear();
  }
  if (!decision.records.empty() || !decision.effects.empty()) {
    waiting_.push_back(std::move(decision));
  }
  Schedule();
  CommitSoon();
}

void World::Schedule() {
  while (core_ != nullptr && core_->wants_schedule() &&
         now_ >= cycles_hidden_until_) {
    if (options_.plant == Plant::kCycleForgotten && Chance(0.02)) {
      cycles_hidden_until_ = now_ + absl::Seconds(20);
      return;
    }
    Decision decision = Apply({.what = ScheduleCommand{}});
    waiting_.push_back(std::move(decision));
  }
}

Decision World::Apply(Command command) {
  if (options_.plant != Plant::kNone && TamperCommand(command)) return {};
  Decision decision = core_->Apply(command, Wall());
  if (options_.plant != Plant::kNone) TamperDecision(command, decision);
  return decision;
}

void World::CommitSoon() {
  if (commit_planned_ || waiting_.empty()) return;
  CommitAt(now_ + Between(absl::Microseconds(100), absl::Milliseconds(8)));
}

void World::CommitAt(absl::Time when) {
  commit_planned_ = true;
  const int life = life_;
  At(when, [this, life] {
    if (life != life_) return;
    commit_planned_ = false;
    now_ < paused_until_ ? CommitAt(paused_until_) : Commit();
  });
}

void World::Commit() {
  const std::vector<Decision> batch = std::exchange(waiting_, {});
  const bool has_records = std::ranges::any_of(
      batch, [](const Decision& each) { return !each.records.empty(); });
  const bool dies = storming_ && Chance(0.0002);
  if (dies && Chance(0.5)) {
    ++report_.faults["crash before commit"];
    return CrashCoordinator();
  }
  if (has_records) {
    if (now_ < store_full_until_) {
      waiting_ = batch;
      return DropAndReload(absl::ResourceExhaustedError("disk full"));
    }
    rules_.SetNow(now_);
    rules_.OnCommit(batch, Wall());
    if (!rules_.violation().empty()) return;
    if (!store_.Commit(batch).ok()) return rules_.Fail("a commit failed");
    rules_.AfterCommit(batch);
  }
  if (dies) {
    ++report_.faults["crash after commit"];
    // Some of it was told.
    for (const Decision& decision : batch) {
      for (const Effect& effect : decision.effects) {
        if (Chance(0.5)) return CrashCoordinator();
        Release(effect);
      }
    }
    return CrashCoordinator();
  }
  for (const Decision& decision : batch) {
    for (const Effect& effect : decision.effects) {
      Release(effect);
      if (!rules_.violation().empty()) return;
    }
  }
  Schedule();
  CommitSoon();
}

void World::DropAndReload(const absl::Status& error) {
  ++report_.seen["batch dropped"];
  Note("store is full, the batch is dropped");
  const std::vector<Decision> batch = std::exchange(waiting_, {});
  for (const Decision& decision : batch) {
    for (const Effect& effect : EffectsOfDropped(decision, error)) {
      Release(effect);
    }
  }
  if (options_.plant == Plant::kNoReloadAfterFullStore) return;
  core_->Reload(store_.Load().value(), batch, Wall());
  Schedule();
  CommitSoon();
}

void World::Release(const Effect& effect) {
  rules_.SetNow(now_);
  rules_.OnRelease(effect);
  if (const auto* reply = std::get_if<Reply>(&effect)) {
    const auto caller = callers_.find(reply->ticket);
    if (caller == callers_.end()) return;
    const auto answer = std::move(caller->second);
    callers_.erase(caller);
    answer(*reply);
  } else if (const auto* order = std::get_if<ToWorker>(&effect)) {
    Tell(order->session, order->message);
  } else if (const auto* close = std::get_if<CloseSession>(&effect)) {
    const auto entry = worker_of_.find(close->session);
    if (entry == worker_of_.end()) return;
    ModelWorker& worker = *workers_[entry->second];
    worker_of_.erase(entry);
    if (worker.session == close->session) {
      Note(absl::StrCat(worker.id, "#", worker.number,
                        " is closed: ", close->status.message()));
      ReattachSoon(worker);
    }
  } else if (const auto* happened = std::get_if<EventHappened>(&effect)) {
    if (options_.keeps_history) {
      Note(absl::StrCat(happened->event.job_id(), " ",
                        happened->event.message()));
    }
    if (happened->event.kind() == v1::EVENT_KIND_CONDITION) {
      ++report_.seen["quarantine"];
    }
  }
}

}  // namespace ft::testing
