// SPDX-License-Identifier: Apache-2.0
//
// What breaks in a simulation, and when nothing breaks any more.

#include <algorithm>
#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/job_state.h"
#include "tests/simulation/world.h"

namespace ft::testing {
namespace {

// Scaled down, so that what they bound happens within the minutes of a storm.
Timers TimersOfSimulation() {
  Timers timers;
  timers.start_timeout = absl::Seconds(60);
  timers.yield_grace = absl::Seconds(15);
  timers.hang_suspicion = absl::Seconds(60);
  return timers;
}

constexpr int kWorkers = 4;
constexpr absl::Duration kCalm = absl::Minutes(60);

}  // namespace

World::World(const SimulationOptions& options)
    : options_(options),
      random_(options.seed * 0x9e3779b97f4a7c15u + 1),
      timers_(TimersOfSimulation()),
      rules_(store_) {
  for (int i = 0; i < kWorkers; ++i) {
    auto worker = std::make_unique<ModelWorker>();
    worker->id = absl::StrCat("w-", i);
    worker->number = i;
    worker->slots = 1 + i % 2;
    if (i == 3 && Chance(0.3)) worker->isa = "avx512";
    workers_.push_back(std::move(worker));
  }
}

SimulationReport World::Run() {
  StartCoordinator();
  for (auto& worker : workers_) StartWorker(*worker);
  const absl::Time end = now_ + options_.storm;
  std::function<void()> client = [&] {
    if (!storming_) return;
    ClientActs();
    In(Between(absl::Milliseconds(100), absl::Seconds(4)), client);
  };
  std::function<void()> fault = [&] {
    if (!storming_) return;
    Fault();
    In(Between(absl::Milliseconds(200), absl::Seconds(8)), fault);
  };
  In(absl::Seconds(1), client);
  In(absl::Seconds(2), fault);
  while (now_ < end && rules_.violation().empty()) {
    RunUntil(std::min(end, now_ + absl::Seconds(5)));
    CheckStaleRanks();
  }
  Calm();
  if (rules_.violation().empty()) rules_.CheckAll();
  return Report();
}

void World::Fault() {
  const int index = Roll(static_cast<int>(workers_.size()));
  ModelWorker& worker = *workers_[index];
  const auto count = [&](const char* name) {
    ++report_.faults[name];
    if (options_.keeps_history)
      Note(absl::StrCat("fault: ", name, " ", worker.id));
  };
  const auto heal_later = [&](absl::Duration most) {
    In(Between(absl::Milliseconds(200), most), [this, index] {
      ModelWorker& there = *workers_[index];
      Heal(there, there.up);
      Heal(there, there.down);
      if (there.session != 0) there.in_touch_since = now_;
    });
    worker.in_touch_since = absl::InfiniteFuture();
  };
  const auto end_some = [&](v1::AttemptCause cause, int signal, int code) {
    for (const auto& [epoch, attempt] : worker.attempts) {
      if (attempt.over || attempt.done) continue;
      return EndAttempt(worker, epoch, cause, signal, code);
    }
  };
  switch (Roll(24)) {
    case 0:
    case 1:
      count("kill a rank");
      return end_some(v1::ATTEMPT_CAUSE_RANK_SIGNAL, SIGKILL, 0);
    case 2:
    case 3:
      count("kill a worker");
      KillWorker(worker);
      return In(Between(absl::Milliseconds(100), absl::Seconds(20)),
                [this, index] {
                  if (!workers_[index]->is_guest) StartWorker(*workers_[index]);
                });
    case 4:
      count("partition up");
      worker.up.blocked = true;
      return heal_later(absl::Seconds(20));
    case 5:
      count("partition down");
      worker.down.blocked = true;
      return heal_later(absl::Seconds(20));
    case 6:
      count("partition both");
      worker.up.blocked = worker.down.blocked = true;
      return heal_later(absl::Seconds(40));
    case 7:
      count("delay");
      worker.up.extra = Between(absl::ZeroDuration(), absl::Seconds(4));
      worker.down.extra = Between(absl::ZeroDuration(), absl::Seconds(4));
      return heal_later(absl::Seconds(30));
    case 8:
    case 9:
      count("duplicate and reorder");
      worker.up.shuffle = 0.5;
      worker.down.shuffle = 0.5;
      return heal_later(absl::Seconds(30));
    case 10:
    case 11:
      count("lose a stream");
      return CutSession(worker);
    case 12:
      count("kill the coordinator");
      return CrashCoordinator();
    case 13:
      count("pause the coordinator");
      paused_until_ = std::max(
          paused_until_, now_ + Between(absl::Milliseconds(500),
                                        absl::Seconds(Chance(0.2) ? 60 : 5)));
      return;
    case 14:
      count("jump of the clock");
      wall_offset_ += Between(-absl::Hours(1), absl::Hours(1));
      return;
    case 15:
      count("store full");
      store_full_until_ =
          now_ + Between(absl::Milliseconds(1), absl::Seconds(10));
      return;
    case 16:
      if (!worker.alive || worker.draining) return;
      count("drain");
      worker.draining = true;
      {
        v1::ConnectRequest message;
        message.mutable_drain();
        Say(worker, std::move(message));
      }
      return In(Between(absl::Seconds(1), absl::Seconds(20)), [this, index] {
        KillWorker(*workers_[index]);
        In(Between(absl::Milliseconds(100), absl::Seconds(10)), [this, index] {
          if (!workers_[index]->is_guest) StartWorker(*workers_[index]);
        });
      });
    case 17: {
      count("duplicate worker id");
      auto guest = std::make_unique<ModelWorker>();
      guest->id = worker.id;
      guest->number = static_cast<int>(workers_.size());
      guest->slots = worker.slots;
      guest->isa = worker.isa;
      guest->is_guest = true;
      const int number = guest->number;
      workers_.push_back(std::move(guest));
      StartWorker(*workers_[number]);
      return In(Between(absl::Seconds(1), absl::Seconds(30)),
                [this, number] { KillWorker(*workers_[number]); });
    }
    case 18:
      count("slow worker");
      worker.slowness = 1 + Roll(10);
      return In(Between(absl::Seconds(1), absl::Seconds(60)),
                [this, index] { workers_[index]->slowness = 1; });
    case 19:
      count("stop a worker");
      worker.hung = true;
      worker.down.blocked = true;
      worker.in_touch_since = absl::InfiniteFuture();
      return In(Between(absl::Milliseconds(500), absl::Seconds(20)),
                [this, index] {
                  ModelWorker& there = *workers_[index];
                  there.hung = false;
                  Heal(there, there.down);
                  if (there.session != 0) there.in_touch_since = now_;
                });
    case 20:
    case 21:
      count("worker that breaks ranks");
      worker.crash_share = 0.3;
      return In(Between(absl::Seconds(10), absl::Seconds(90)),
                [this, index] { workers_[index]->crash_share = 0; });
    case 22:
      count("rank hangs");
      return end_some(v1::ATTEMPT_CAUSE_RANK_HANG, 0, 0);
    default: {
      count("rank ends with a code");
      const absl::StatusCode codes[] = {
          absl::StatusCode::kUnavailable, absl::StatusCode::kResourceExhausted,
          absl::StatusCode::kDataLoss, absl::StatusCode::kInternal};
      // That fails the job.
      if (Chance(0.2)) return end_some(v1::ATTEMPT_CAUSE_OOM_HOST, 0, 0);
      return end_some(v1::ATTEMPT_CAUSE_RANK_EXIT, 0,
                      static_cast<int>(codes[Roll(4)]));
    }
  }
}

bool World::AllEnded() {
  return std::ranges::all_of(rules_.timelines(), [](const auto& entry) {
    return IsTerminal(entry.second.status().state());
  });
}

// Nothing breaks any more, and somebody looks after what waits for a person:
// every job must end.
void World::Calm() {
  Note("calm");
  storming_ = false;
  store_full_until_ = now_;
  for (auto& worker : workers_) {
    worker->hung = false;
    worker->slowness = 1;
    worker->crash_share = 0;
    Heal(*worker, worker->up);
    Heal(*worker, worker->down);
    if (worker->session != 0) worker->in_touch_since = now_;
    if (worker->is_guest) KillWorker(*worker);
  }
  const absl::Time end = now_ + kCalm;
  while (now_ < end && rules_.violation().empty()) {
    RunUntil(now_ + absl::Seconds(5));
    CheckStaleRanks();
    if (core_ == nullptr) continue;
    for (auto& worker : workers_) {
      if (!worker->is_guest && !worker->alive) StartWorker(*worker);
      if (worker->draining) KillWorker(*worker);
    }
    std::vector<std::string> held;
    for (const auto& [job_id, timeline] : rules_.timelines()) {
      if (timeline.status().state() == v1::JOB_STATE_HELD) {
        held.push_back(job_id);
      }
    }
    for (const std::string& job_id : held) Resume(job_id);
    ReleaseWorkers(/*all=*/false);
    if (AllEnded()) {
      RunUntil(now_ + absl::Seconds(20));
      CheckStaleRanks();
      if (AllEnded()) return;
    }
  }
  if (!rules_.violation().empty()) return;
  for (const auto& [job_id, timeline] : rules_.timelines()) {
    const v1::JobState state = timeline.status().state();
    if (IsTerminal(state)) continue;
    rules_.Fail(absl::StrCat(job_id, " is still ", ShortName(state),
                             " after an hour in which nothing broke"));
  }
}

SimulationReport World::Report() {
  report_.violation = rules_.violation();
  report_.at = now_ - begin_;
  for (const auto& [job_id, timeline] : rules_.timelines()) {
    ++report_.outcomes[timeline.status().state()];
    report_.seen["failed job resumed"] += timeline.resumed_ends();
    for (const Timeline::Attempt& attempt : timeline.attempts()) {
      ++report_.seen[absl::StrCat("attempt ended by ",
                                  ShortName(attempt.row.cause()))];
    }
  }
  report_.history.assign(history_.begin(), history_.end());
  return report_;
}

SimulationReport RunSimulation(const SimulationOptions& options) {
  return World(options).Run();
}

}  // namespace ft::testing
