// SPDX-License-Identifier: Apache-2.0
//
// The real core under a random life: submits, cancels, ranks that die, workers
// that crash, hang, drain and come back, restarts of the coordinator, all on
// virtual time and from one seed. After each event the invariants hold; after
// the storm every job ends.

#include <random>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "tests/coordinator/core_world.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::CoreWorld;
using testing::Inbox;

constexpr int64_t kSteps = 6;

// A daemon that does what the protocol says, with ranks that step.
struct SimWorker {
  struct Attempt {
    std::string job_id;
    uint64_t epoch = 0;
    std::vector<int> ranks;
    bool publishes = false;
    bool running = false;
    bool done = false;
    int64_t step = 0;
  };
  CoreWorld::Machine machine;
  bool attached = false;
  bool hung = false;     // Alive, but silent.
  bool drained = false;  // Takes nothing new until it is started anew.
  int instances = 0;
  std::map<uint64_t, Attempt> attempts;
};

class Simulation : public CoreWorld {
 public:
  explicit Simulation(uint64_t seed) : random_(seed) {
    for (int i = 0; i < 4; ++i) {
      SimWorker& worker = workers_[absl::StrCat("w-", i)];
      worker.machine.slots = 1 + i % 2;
      worker.machine.instance = absl::StrCat("i-", i, "-0");
    }
    for (auto& [id, worker] : workers_) Connect(id);
  }

  void Storm(int events) {
    for (int i = 0; i < events; ++i) {
      Disturb();
      Live();
      CheckInvariants();
    }
  }

  // Nothing breaks any more: every job must end.
  void Calm() {
    for (auto& [id, worker] : workers_) {
      worker.hung = false;
      if (worker.drained) Kill(id, worker);
      if (!worker.attached) Connect(id);
    }
    for (int i = 0; i < 4000 && !AllEnded(); ++i) Live();
    CheckInvariants();
    EXPECT_TRUE(AllEnded());
  }

  std::map<v1::JobState, int> Outcomes() {
    std::map<v1::JobState, int> outcomes;
    for (const std::string& job : jobs_) ++outcomes[State(job)];
    return outcomes;
  }

 private:
  int Roll(int sides) {
    return std::uniform_int_distribution<int>(0, sides - 1)(random_);
  }
  std::string AnyWorker() {
    return absl::StrCat("w-", Roll(static_cast<int>(workers_.size())));
  }
  bool AllEnded() {
    return std::ranges::all_of(
        jobs_, [this](const auto& job) { return IsTerminal(State(job)); });
  }

  void Disturb() {
    const std::string id = AnyWorker();
    SimWorker& worker = workers_[id];
    switch (Roll(14)) {
      case 0:
      case 1:
        if (jobs_.size() < 25)
          jobs_.push_back(Submit(Spec(1 + Roll(3))).value());
        break;
      case 2:
        if (!jobs_.empty() && Roll(3) == 0) {
          Cancel(jobs_[Roll(static_cast<int>(jobs_.size()))]);
        }
        break;
      case 3:  // A rank dies; its daemon ends the attempt there.
        if (worker.attached && !worker.attempts.empty()) {
          const SimWorker::Attempt attempt = worker.attempts.begin()->second;
          worker.attempts.erase(attempt.epoch);
          SayEnded(id, attempt, v1::ATTEMPT_CAUSE_RANK_SIGNAL, /*signal=*/9);
        }
        break;
      case 4:  // kill -9 of the daemon.
        Kill(id, worker);
        break;
      case 5:  // The network breaks.
        if (worker.attached) Break(id);
        worker.attached = false;
        break;
      case 6:
      case 7:
        if (!worker.attached) Connect(id);
        break;
      case 8:
        worker.hung = !worker.hung;
        break;
      case 9:  // kill -9 of the coordinator.
        if (Roll(3) == 0) {
          Restart();
          for (auto& [other, sim] : workers_) sim.attached = false;
        }
        break;
      case 10:
        if (worker.attached && Roll(4) == 0) {
          v1::ConnectRequest drain;
          drain.mutable_drain();
          Say(id, drain);
          worker.drained = true;
        }
        break;
      case 11:
        Freeze(absl::Seconds(Roll(100)));
        break;
      default:
        break;
    }
  }

  void Kill(const std::string& id, SimWorker& worker) {
    if (worker.attached) Break(id);
    worker.attached = false;
    worker.drained = false;
    worker.attempts.clear();
    worker.machine.instance = absl::StrCat("i-", id, "-", ++worker.instances);
  }

  // A moment in which everybody who can goes on.
  void Live() {
    for (auto& [id, worker] : workers_) {
      if (!worker.attached && Roll(10) == 0) Connect(id);
      if (worker.attached && InboxOf(id).closed.has_value()) {
        worker.attached = false;
      }
      if (worker.attached && !worker.hung) {
        Act(id, worker);
      } else {
        Haunt(id, worker);
      }
    }
    Pass(absl::Milliseconds(300));
  }

  // A worker that is cut off, or hangs, may still have ranks that step and an
  // uploader that gets through: whatever it writes is judged by its epoch.
  void Haunt(const std::string& id, SimWorker& worker) {
    const std::map<uint64_t, SimWorker::Attempt> attempts = worker.attempts;
    for (const auto& [epoch, attempt] : attempts) {
      if (!attempt.running || attempt.done || !attempt.publishes) continue;
      const auto committed =
          Commit(attempt.job_id, epoch, v1::ARTIFACT_KIND_CHECKPOINT,
                 attempt.step, absl::StrCat("step ", attempt.step));
      if (committed.ok()) NoteCommit(attempt);
      const auto published =
          Commit(attempt.job_id, epoch, v1::ARTIFACT_KIND_ADAPTER, kSteps,
                 "adapter", Job(attempt.job_id).spec().export_().name());
      // It has not taken its last step.
      EXPECT_FALSE(published.ok()) << id;
    }
  }

  void Act(const std::string& id, SimWorker& worker) {
    Obey(id, worker);
    std::vector<uint64_t> epochs;
    for (const auto& [epoch, attempt] : worker.attempts) {
      epochs.push_back(epoch);
    }
    Beat(id, epochs);
    for (const uint64_t epoch : epochs) {
      const auto found = worker.attempts.find(epoch);
      if (found != worker.attempts.end() && found->second.running) {
        Step(id, found->second);
      }
    }
    Obey(id, worker);
  }

  void Step(const std::string& id, SimWorker::Attempt& attempt) {
    if (attempt.done) return;
    ++attempt.step;
    // The bytes of a step depend on the step alone.
    if (attempt.publishes && attempt.step % 2 == 0) {
      const auto committed =
          Commit(attempt.job_id, attempt.epoch, v1::ARTIFACT_KIND_CHECKPOINT,
                 attempt.step, absl::StrCat("step ", attempt.step));
      if (committed.ok()) NoteCommit(attempt);
    }
    if (attempt.step >= kSteps) {
      attempt.done = true;
      SayUpdate(id, attempt,
                [](v1::AttemptUpdate& update) { update.mutable_ranks_done(); });
    }
  }

  // Only the newest epoch may ever have written.
  void NoteCommit(const SimWorker::Attempt& attempt) {
    uint64_t& newest = committed_[attempt.job_id];
    EXPECT_GE(attempt.epoch, newest);
    newest = attempt.epoch;
    EXPECT_EQ(Epoch(attempt.job_id), attempt.epoch);
  }

  void Obey(const std::string& id, SimWorker& worker) {
    const std::vector<v1::ConnectResponse> orders = InboxOf(id).messages;
    Take(id, &v1::ConnectResponse::IsInitialized);  // All of them.
    for (const v1::ConnectResponse& order : orders) Obey(id, worker, order);
  }

  void Obey(const std::string& id, SimWorker& worker,
            const v1::ConnectResponse& order) {
    if (order.has_start_attempt()) {
      Start(id, worker, order.start_attempt());
    } else if (order.has_open_barrier()) {
      const auto held = worker.attempts.find(order.open_barrier().epoch());
      if (held != worker.attempts.end()) held->second.running = true;
    } else if (order.has_stop()) {
      Finish(id, worker, order.stop().epoch(), v1::ATTEMPT_CAUSE_STOPPED);
    } else if (order.has_yield()) {
      Finish(id, worker, order.yield().epoch(), v1::ATTEMPT_CAUSE_YIELDED);
    } else if (order.has_fence()) {
      worker.attempts.erase(order.fence().epoch());
    } else if (order.has_heartbeat_reply()) {
      const auto& valid = order.heartbeat_reply().valid_epochs();
      std::erase_if(worker.attempts, [&](const auto& entry) {
        // An attempt that began after the heartbeat is not in its answer.
        return std::ranges::count(valid, entry.first) == 0 &&
               entry.second.running;
      });
    } else if (order.has_publish()) {
      const auto held = worker.attempts.find(order.publish().epoch());
      if (held == worker.attempts.end()) return;
      const auto done =
          Commit(held->second.job_id, held->first, v1::ARTIFACT_KIND_ADAPTER,
                 kSteps, "adapter", order.publish().artifact_name());
      if (done.ok()) {
        NoteCommit(held->second);
        ++published_[held->second.job_id];
      }
    }
  }

  void Start(const std::string& id, SimWorker& worker,
             const v1::StartAttempt& start) {
    if (worker.attempts.contains(start.epoch())) return;
    SimWorker::Attempt& attempt = worker.attempts[start.epoch()];
    attempt.job_id = start.job_id();
    attempt.epoch = start.epoch();
    attempt.step = start.source_step();
    for (const v1::RankPlacement& rank : start.placement().ranks()) {
      if (rank.worker_id() != id) continue;
      attempt.ranks.push_back(rank.rank());
      attempt.publishes |= rank.rank() == 0;
    }
    const SimWorker::Attempt copy = attempt;
    SayReady(id, copy);
  }

  void SayReady(const std::string& id, const SimWorker::Attempt& attempt) {
    SayUpdate(id, attempt,
              [](v1::AttemptUpdate& update) { update.mutable_accepted(); });
    for (const int rank : attempt.ranks) {
      SayUpdate(id, attempt, [&](v1::AttemptUpdate& update) {
        update.mutable_rank_ready()->set_rank(rank);
      });
    }
  }

  void Finish(const std::string& id, SimWorker& worker, uint64_t epoch,
              v1::AttemptCause cause) {
    const auto held = worker.attempts.find(epoch);
    if (held == worker.attempts.end()) return;
    const SimWorker::Attempt attempt = held->second;
    worker.attempts.erase(held);
    SayEnded(id, attempt, cause, 0);
  }

  template <typename Fill>
  void SayUpdate(const std::string& id, const SimWorker::Attempt& attempt,
                 Fill fill) {
    v1::ConnectRequest message = Update(attempt.job_id, attempt.epoch);
    fill(*message.mutable_attempt_update());
    Say(id, std::move(message));
  }
  void SayEnded(const std::string& id, const SimWorker::Attempt& attempt,
                v1::AttemptCause cause, int signal) {
    SayUpdate(id, attempt, [&](v1::AttemptUpdate& update) {
      update.mutable_ended()->set_cause(cause);
      update.mutable_ended()->set_signal(signal);
      update.mutable_ended()->set_last_step(attempt.step);
    });
  }

  void Connect(const std::string& id) {
    SimWorker& worker = workers_[id];
    std::vector<v1::AttachedAttempt> held;
    for (const auto& [epoch, attempt] : worker.attempts) {
      held.push_back(Held(attempt.job_id, epoch,
                          attempt.running ? v1::ATTEMPT_STATE_RUNNING
                                          : v1::ATTEMPT_STATE_STARTING));
    }
    CoreWorld::Attach(id, worker.machine, held);
    worker.attached = !InboxOf(id).closed.has_value();
    if (!worker.attached) return;
    // What was said into a broken stream is said again.
    const std::map<uint64_t, SimWorker::Attempt> attempts = worker.attempts;
    for (const auto& [epoch, attempt] : attempts) {
      if (!attempt.running) SayReady(id, attempt);
      if (attempt.done) {
        SayUpdate(id, attempt, [](v1::AttemptUpdate& update) {
          update.mutable_ranks_done();
        });
      }
    }
  }

  void CheckInvariants() {
    std::map<std::pair<std::string, int>, std::string> slots;
    for (const std::string& job_id : jobs_) {
      const v1::Job job = Job(job_id);
      const v1::JobStatus& status = job.status();
      // A terminal state is left by nothing.
      const auto ended = ended_.find(job_id);
      if (ended != ended_.end()) {
        ASSERT_EQ(status.state(), ended->second);
      }
      if (IsTerminal(status.state())) ended_[job_id] = status.state();
      // Epochs grow; one attempt lives at most; a terminal job has none.
      uint64_t last = 0;
      int live = 0;
      for (const v1::Attempt& attempt : status.attempts()) {
        ASSERT_GT(attempt.epoch(), last);
        last = attempt.epoch();
        if (attempt.state() != v1::ATTEMPT_STATE_ENDED) ++live;
      }
      ASSERT_LE(live, IsTerminal(status.state()) ? 0 : 1) << job_id;
      // Published exactly once, and exactly by SUCCEEDED jobs.
      ASSERT_EQ(published_[job_id],
                status.state() == v1::JOB_STATE_SUCCEEDED ? 1 : 0)
          << job_id;
      // The durable step never goes back, and nothing ever diverges.
      ASSERT_GE(status.checkpoint_step(), durable_step_[job_id]);
      durable_step_[job_id] = status.checkpoint_step();
      if (live == 0 || status.state() == v1::JOB_STATE_FINALIZING) continue;
      // No slot has two tenants.
      for (const auto& rank : status.attempts().rbegin()->placement().ranks()) {
        const auto [slot, is_free] =
            slots.emplace(std::pair(rank.worker_id(), rank.slot()), job_id);
        // A gang that is being stopped may have lost its worker's slots.
        ASSERT_TRUE(is_free || IsStopping(job_id) || IsStopping(slot->second))
            << job_id << " and " << slot->second << " on " << rank.worker_id();
      }
    }
  }

  bool IsStopping(const std::string& job_id) {
    return LastAttempt(job_id).state() == v1::ATTEMPT_STATE_DRAINING;
  }

  std::mt19937_64 random_;
  std::map<std::string, SimWorker> workers_;
  std::vector<std::string> jobs_;
  std::map<std::string, v1::JobState> ended_;
  std::map<std::string, int> published_;
  std::map<std::string, int64_t> durable_step_;
  std::map<std::string, uint64_t> committed_;
};

class SimulationTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(SimulationTest, InvariantsHoldAndEveryJobEnds) {
  Simulation simulation(GetParam());
  simulation.Storm(150);
  simulation.Calm();
  if (HasFailure()) return;
  const auto outcomes = simulation.Outcomes();
  for (const auto& [state, count] : outcomes) {
    EXPECT_TRUE(IsTerminal(state)) << ShortName(state);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, SimulationTest,
                         ::testing::Range<uint64_t>(1, 101));

}  // namespace
}  // namespace ft
