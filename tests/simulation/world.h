// SPDX-License-Identifier: Apache-2.0
//
// The inside of a simulation: virtual time, the coordinator with its store, the
// network, model workers, clients, and the faults. One thread.

#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/core.h"
#include "coordinator/memory_job_store.h"
#include "tests/simulation/rules.h"
#include "tests/simulation/simulation.h"

namespace ft::testing {

// A daemon that does what the protocol says, and its ranks, which step.
struct ModelWorker {
  struct Attempt {
    v1::StartAttempt order;
    std::vector<int32_t> ranks;
    bool publishes = false;  // Has rank 0.
    bool running = false;
    bool done = false;
    bool over = false;  // Has said its end.
    int64_t step = 0;
    int64_t event_seq = 0;
    std::optional<std::string> publish_as;
    std::vector<v1::AttemptUpdate> updates;  // Said again after Attach.
    std::vector<v1::WorkerEvent> unacked;    // Likewise.
  };

  std::string id;
  int number = 0;  // Of the model; two models may use one id.
  int slots = 1;
  std::string isa = "avx2";
  bool is_guest = false;  // Uses the id of another.

  bool alive = false;
  bool hung = false;  // Alive, but does nothing.
  bool draining = false;
  double slowness = 1;
  double crash_share = 0;  // Of steps that end in a crash here.
  int life = 0;            // Grows with each start of the daemon.
  uint64_t session = 0;    // 0: none.
  int64_t beats = 0;
  // Epochs of each heartbeat that was not answered, by its number.
  std::map<int64_t, std::vector<uint64_t>> asked;
  absl::Time in_touch_since;
  std::map<uint64_t, Attempt> attempts;

  // The two directions of its link: to the coordinator, and back.
  struct Direction {
    bool blocked = false;
    absl::Duration extra = absl::ZeroDuration();
    double shuffle = 0;  // Share of messages doubled or out of order.
    absl::Time last;
    // By number, which is the order of sending.
    uint64_t sent = 0;
    std::map<uint64_t, std::function<void()>> held;
  };
  Direction up, down;
};

class World {
 public:
  explicit World(const SimulationOptions& options);
  SimulationReport Run();

 private:
  // --- time.cc: time and chance ---
  void At(absl::Time when, std::function<void()> what);
  void In(absl::Duration delay, std::function<void()> what) {
    At(now_ + delay, std::move(what));
  }
  void RunUntil(absl::Time end);
  int Roll(int sides);
  bool Chance(double share);
  absl::Duration Between(absl::Duration least, absl::Duration most);
  void Note(const std::string& what);
  absl::Time Wall() const { return now_ + wall_offset_; }

  // --- coordinator.cc ---
  void StartCoordinator();
  void CrashCoordinator();
  void Tick();
  void Post(Command command);
  void Schedule();
  void CommitSoon();
  void CommitAt(absl::Time when);
  void Commit();
  void DropAndReload(const absl::Status& error);
  void Release(const Effect& effect);
  Decision Apply(Command command);
  // Plants.
  bool TamperCommand(Command& command);
  void TamperDecision(const Command& command, Decision& decision);

  // --- network.cc ---
  std::function<void()> Arrival(ModelWorker& worker,
                                ModelWorker::Direction& direction,
                                uint64_t number, std::function<void()> arrive);
  void Carry(ModelWorker& worker, ModelWorker::Direction& direction,
             bool may_shuffle, std::function<void()> arrive);
  void Heal(ModelWorker& worker, ModelWorker::Direction& direction);
  void Say(ModelWorker& worker, v1::ConnectRequest message);
  void Tell(uint64_t session, const v1::ConnectResponse& message);
  void CutSession(ModelWorker& worker);
  // A unary call: lost with some chance on either way.
  template <typename What>
  void Call(What what, double loss, std::function<void(const Reply&)> answer);

  // --- workers.cc ---
  void StartWorker(ModelWorker& worker);
  void KillWorker(ModelWorker& worker);
  void Attach(ModelWorker& worker);
  void ReattachSoon(ModelWorker& worker);
  void Beat(int number, int life);
  void Obey(ModelWorker& worker, const v1::ConnectResponse& order);
  void OnAttached(ModelWorker& worker, const v1::Attached& attached);
  void OnHeartbeatReply(ModelWorker& worker, const v1::HeartbeatReply& reply);
  void StartAttempt(ModelWorker& worker, const v1::StartAttempt& order);
  void GetReady(int number, int life, uint64_t epoch);
  void Step(int number, int life, uint64_t epoch);
  void StoreCheckpoint(ModelWorker& worker, ModelWorker::Attempt& attempt);
  void Publish(int number, int life, uint64_t epoch);
  void SayEvent(ModelWorker& worker, ModelWorker::Attempt& attempt);
  void EndAttempt(ModelWorker& worker, uint64_t epoch, v1::AttemptCause cause,
                  int signal = 0, int status_code = 0);
  void SayUpdate(ModelWorker& worker, ModelWorker::Attempt& attempt,
                 v1::AttemptUpdate update);
  ModelWorker::Attempt* Find(int number, int life, uint64_t epoch);
  CommitArtifactCommand Artifact(const ModelWorker::Attempt& attempt,
                                 v1::ArtifactKind kind, int64_t step);
  void CheckStaleRanks();

  // --- clients.cc ---
  void ClientActs();
  void Submit();
  void SubmitAgain();
  void SendSubmit(const std::string& request_id, const v1::JobSpec& spec);
  void Cancel(const std::string& job_id);
  void Resume(const std::string& job_id);
  void ReadFailed(ResumeCommand& resume);
  void Delete(const std::string& job_id);
  void ReleaseWorkers(bool all);
  std::string AnyJob();
  std::string NewRequest();

  // --- faults.cc ---
  void Fault();
  void Calm();
  bool AllEnded();
  SimulationReport Report();

  const SimulationOptions options_;
  std::mt19937_64 random_;
  SimulationReport report_;
  std::deque<std::string> history_;
  bool storming_ = true;

  // Time.
  struct Event {
    absl::Time when;
    uint64_t seq = 0;
    std::function<void()> what;
    bool operator<(const Event& other) const {
      return std::tie(when, seq) > std::tie(other.when, other.seq);
    }
  };
  absl::Time begin_ = absl::FromUnixSeconds(1'800'000'000);
  absl::Time now_ = begin_;
  absl::Duration wall_offset_ = absl::ZeroDuration();
  uint64_t event_seq_ = 0;
  std::vector<Event> events_;  // A heap; the next one first.

  // The coordinator; null while it is dead.
  Timers timers_;
  MemoryJobStore store_;
  Rules rules_;
  std::unique_ptr<Core> core_;
  int life_ = 0;  // Of the coordinator; grows with each start.
  absl::Time paused_until_;
  std::vector<Decision> waiting_;
  bool commit_planned_ = false;
  uint64_t last_ticket_ = 0;
  uint64_t last_session_ = 0;
  absl::Time store_full_until_;
  absl::Time cycles_hidden_until_;
  std::map<uint64_t, std::function<void(const Reply&)>> callers_;

  std::vector<std::unique_ptr<ModelWorker>> workers_;
  std::map<uint64_t, int> worker_of_;  // By session.

  // Clients.
  struct Sent {
    std::string request_id;
    v1::JobSpec spec;
    std::string job_id;  // Empty: no answer yet.
  };
  std::vector<Sent> sent_;
  std::vector<std::string> jobs_;
  std::map<std::string, int64_t> poison_;  // Step; 0: none.
  int requests_ = 0;
};

template <typename What>
void World::Call(What what, double loss,
                 std::function<void(const Reply&)> answer) {
  if (Chance(loss)) return;  // The request is lost.
  In(Between(absl::Milliseconds(1), absl::Milliseconds(30)),
     [this, loss, what = std::move(what), answer = std::move(answer)] {
       if (core_ == nullptr) return;
       // The look into the store comes before the command's turn.
       What call = what;
       const RequestKey& key = call.request.key;
       call.request.stored =
           store_.FindReply(key.principal, key.request_id).value();
       if constexpr (std::is_same_v<What, ResumeCommand>) ReadFailed(call);
       const int life = life_;
       In(Between(absl::ZeroDuration(), absl::Milliseconds(20)),
          [this, life, loss, call = std::move(call), answer] {
            if (core_ == nullptr || life != life_) return;
            const uint64_t ticket = ++last_ticket_;
            callers_[ticket] = [this, loss, answer](const Reply& reply) {
              if (Chance(loss)) return;  // The answer is lost.
              In(Between(absl::Milliseconds(1), absl::Milliseconds(30)),
                 [answer, reply] { answer(reply); });
            };
            Post({.ticket = ticket, .what = call});
          });
     });
}

}  // namespace ft::testing
