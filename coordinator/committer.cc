// SPDX-License-Identifier: Apache-2.0

#include "coordinator/committer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/status.h"
#include "coordinator/dropped_decision.h"

namespace ft {
namespace {

constexpr absl::Duration kScheduleEvery = absl::Milliseconds(5);
constexpr absl::Duration kKeepReplies = absl::Hours(24 * 7);

bool IsFull(const absl::Status& error) {
  return error.code() == absl::StatusCode::kResourceExhausted;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Committer>> Committer::Start(
    const Timers& timers, JobStore& store, const Clock& clock,
    EffectSink& sink) {
  FT_ASSIGN_OR_RETURN(Snapshot snapshot, store.Load());
  // What the restart changes for readers: who acts for which job.
  for (const Snapshot::LiveJob& live : snapshot.live) {
    sink.Release(JobChanged{std::make_shared<v1::Job>(live.job)});
    const auto& attempts = live.job.status().attempts();
    if (!attempts.empty() &&
        attempts.rbegin()->state() != v1::ATTEMPT_STATE_ENDED) {
      sink.Release(LeaseChanged{live.job.job_id(), attempts.rbegin()->epoch()});
    }
  }
  return std::unique_ptr<Committer>(
      new Committer(timers, store, clock, sink, std::move(snapshot)));
}

Committer::Committer(const Timers& timers, JobStore& store, const Clock& clock,
                     EffectSink& sink, Snapshot snapshot)
    : timers_(timers),
      store_(store),
      clock_(clock),
      sink_(sink),
      next_prune_(clock.Now()),
      core_(timers, std::move(snapshot), clock.Now()) {
  core_thread_ = std::thread([this] { RunCore(); });
  store_thread_ = std::thread([this] { RunStore(); });
}

Committer::~Committer() {
  {
    absl::MutexLock hold(&mail_mutex_);
    stopping_ = true;
  }
  core_thread_.join();
  store_thread_.join();
}

void Committer::Post(Command command) {
  absl::MutexLock hold(&mail_mutex_);
  mail_.push_back(std::move(command));
}

bool Committer::is_live() const {
  const absl::Duration since =
      clock_.Monotonic() - absl::Nanoseconds(last_tick_ns_.load());
  return since < 5 * timers_.observed_gap + absl::Seconds(2);
}

void Committer::RunCore() {
  absl::Duration next_tick = clock_.Monotonic();
  absl::Duration next_schedule = next_tick;
  bool wants_schedule = false;
  while (true) {
    std::vector<Command> commands;
    bool stopping = false;
    {
      absl::MutexLock hold(&mail_mutex_);
      const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mail_mutex_) {
        return stopping_ || !mail_.empty();
      };
      const absl::Duration until =
          wants_schedule ? std::min(next_tick, next_schedule) : next_tick;
      mail_mutex_.AwaitWithTimeout(absl::Condition(&wanted),
                                   until - clock_.Monotonic());
      commands.swap(mail_);
      stopping = stopping_;
    }

    const absl::Duration now = clock_.Monotonic();
    {
      absl::MutexLock hold(&core_mutex_);
      for (const Command& command : commands) Apply(command);
      if (now >= next_tick) {
        Apply({.what = TickCommand{}});
        next_tick = now + timers_.tick;
        last_tick_ns_ = absl::ToInt64Nanoseconds(now);
      }
      if (core_.wants_schedule() && now >= next_schedule && !stopping) {
        Apply({.what = ScheduleCommand{}});
        // A long plan must not starve the mailbox: one tenth of the time.
        const absl::Duration end = clock_.Monotonic();
        next_schedule = end + std::max(kScheduleEvery, 9 * (end - now));
      }
      wants_schedule = core_.wants_schedule();
    }
    if (stopping && commands.empty()) break;
  }
  absl::MutexLock hold(&queue_mutex_);
  core_ended_ = true;
}

void Committer::Apply(const Command& command) {
  Decision decision = core_.Apply(command, clock_.Now());
  if (decision.records.empty() && decision.effects.empty()) return;
  absl::MutexLock hold(&queue_mutex_);
  queue_.push_back(std::move(decision));
}

void Committer::RunStore() {
  while (true) {
    std::vector<Decision> batch;
    {
      absl::MutexLock hold(&queue_mutex_);
      const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_mutex_) {
        return core_ended_ || !queue_.empty();
      };
      queue_mutex_.Await(absl::Condition(&wanted));
      if (queue_.empty()) return;
      while (!queue_.empty() && batch.size() < kMaxBatch) {
        batch.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
    }
    CommitBatch(std::move(batch));
  }
}

void Committer::CommitBatch(std::vector<Decision> batch) {
  bool has_records = false;
  for (const Decision& decision : batch) {
    has_records |= !decision.records.empty();
  }
  if (has_records) {
    const absl::Duration before = clock_.Monotonic();
    Pass(Failpoint::kCommitBegins);
    const absl::Status status = store_.Commit(batch);
    is_store_writable_ = status.ok();
    if (IsFull(status)) {
      DropAndReload(std::move(batch), status);
      return;
    }
    if (!status.ok()) {
      sink_.Fatal(status);
      return;
    }
    Pass(Failpoint::kCommitDurable);
    sink_.Committed(clock_.Monotonic() - before, batch.size());
  }
  for (Decision& decision : batch) {
    for (Effect& effect : decision.effects) sink_.Release(std::move(effect));
  }
  if (has_records) Pass(Failpoint::kCommitTold);
  if (clock_.Now() >= next_prune_) {
    next_prune_ = clock_.Now() + absl::Hours(1);
    const absl::Status pruned =
        store_.PruneReplies(clock_.Now() - kKeepReplies);
    if (!pruned.ok() && !IsFull(pruned)) sink_.Fatal(pruned);
  }
}

// The core has gone on from what was not stored, so everything that still waits
// is dropped with the batch, and the core goes back to what is durable.
void Committer::DropAndReload(std::vector<Decision> batch,
                              const absl::Status& error) {
  Log(LogSeverity::kError, "coordinator",
      "store is full, mutations are refused until there is space",
      {{"error", error.message()}});
  absl::MutexLock hold(&core_mutex_);
  {
    absl::MutexLock queue(&queue_mutex_);
    for (Decision& decision : queue_) batch.push_back(std::move(decision));
    queue_.clear();
  }
  absl::StatusOr<Snapshot> snapshot = store_.Load();
  if (!snapshot.ok()) {
    sink_.Fatal(snapshot.status());
    return;
  }
  for (const Decision& decision : batch) {
    for (Effect& effect : EffectsOfDropped(decision, error)) {
      sink_.Release(std::move(effect));
    }
  }
  core_.Reload(*std::move(snapshot), batch, clock_.Now());
}

}  // namespace ft
