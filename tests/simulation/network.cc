// SPDX-License-Identifier: Apache-2.0
//
// The network of a simulation. A stream keeps its order; what is lost breaks
// it. Messages that are idempotent by epoch also come twice or late, as if the
// order were not kept.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/simulation/world.h"

namespace ft::testing {

// What comes to a worker that is stopped waits for it.
std::function<void()> World::Arrival(ModelWorker& worker,
                                     ModelWorker::Direction& direction,
                                     uint64_t number,
                                     std::function<void()> arrive) {
  return [&worker, &direction, number, arrive = std::move(arrive)] {
    if (worker.hung && &direction == &worker.down) {
      direction.held.emplace(number, arrive);
    } else {
      arrive();
    }
  };
}

void World::Carry(ModelWorker& worker, ModelWorker::Direction& direction,
                  bool may_shuffle, std::function<void()> arrive) {
  const uint64_t number = ++direction.sent;
  if (direction.blocked) {
    direction.held.emplace(number, std::move(arrive));
    return;
  }
  arrive = Arrival(worker, direction, number, std::move(arrive));
  const absl::Duration delay =
      direction.extra + Between(absl::Milliseconds(1), absl::Milliseconds(15));
  if (may_shuffle && Chance(direction.shuffle)) {
    In(delay + Between(absl::ZeroDuration(), absl::Seconds(1)), arrive);
    if (Chance(0.5)) return;
    ++report_.seen["message doubled"];
  }
  direction.last = std::max(direction.last, now_ + delay);
  At(direction.last, std::move(arrive));
}

void World::Heal(ModelWorker& worker, ModelWorker::Direction& direction) {
  direction.blocked = false;
  direction.extra = absl::ZeroDuration();
  direction.shuffle = 0;
  direction.last = std::max(direction.last, now_);
  for (auto& [number, arrive] : std::exchange(direction.held, {})) {
    direction.last += absl::Milliseconds(1);
    At(direction.last, Arrival(worker, direction, number, std::move(arrive)));
  }
}

void World::Say(ModelWorker& worker, v1::ConnectRequest message) {
  const uint64_t session = worker.session;
  if (session == 0) return;
  const bool is_loose = message.has_attempt_update() || message.has_heartbeat();
  Carry(worker, worker.up, is_loose,
        [this, session, message = std::move(message)] {
          if (!worker_of_.contains(session)) return;
          Post({.what = WorkerCommand{session, message}});
        });
}

void World::Tell(uint64_t session, const v1::ConnectResponse& message) {
  const auto entry = worker_of_.find(session);
  if (entry == worker_of_.end()) return;
  const int number = entry->second;
  ModelWorker& worker = *workers_[number];
  const bool is_loose = !message.has_attached() && !message.has_event_ack();
  Carry(worker, worker.down, is_loose, [this, number, session, message] {
    ModelWorker& there = *workers_[number];
    if (!there.alive || there.session != session) return;
    Obey(there, message);
  });
}

// What is in flight is lost; each side sees it in its time.
void World::CutSession(ModelWorker& worker) {
  const uint64_t session = worker.session;
  if (session == 0) return;
  worker_of_.erase(session);
  if (Chance(0.7)) {  // Else nothing tells the coordinator but silence.
    In(Between(absl::Milliseconds(1), absl::Seconds(1)),
       [this, session] { Post({.what = DetachCommand{session}}); });
  }
  ReattachSoon(worker);
}

}  // namespace ft::testing
