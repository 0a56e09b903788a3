// SPDX-License-Identifier: Apache-2.0
//
// Every timer of the coordinator, in one place and under one factor, so that a
// test shortens all of them alike. Only observed time counts: when the core's
// ticker gaps (a paused machine, a starved process), no deadline comes nearer.

#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace ft {

struct Timers {
  // Period of the workers' heartbeats.
  absl::Duration heartbeat = absl::Seconds(1);

  // A stream broke and the same instance did not come back: WORKER_CRASH.
  absl::Duration reattach_grace = absl::Milliseconds(700);

  // Silence of a worker: no placements; WORKER_LOST.
  absl::Duration suspect_after = absl::Seconds(3);
  absl::Duration lost_after = absl::Milliseconds(4500);

  // After a start of the coordinator nobody is judged earlier.
  absl::Duration restart_window = absl::Seconds(15);

  // From the orders until every rank is ready; from Yield until the
  // checkpoint is there; from Stop until a worker's silence counts as done.
  absl::Duration start_timeout = absl::Minutes(10);
  absl::Duration yield_grace = absl::Seconds(120);
  absl::Duration stop_grace = absl::Seconds(10);

  // A RECOVERING job keeps its slots so long.
  absl::Duration recovery_hold = absl::Seconds(30);

  // A worker where gangs hung gets no placements so long.
  absl::Duration hang_suspicion = absl::Minutes(10);

  // How often progress is stored.
  absl::Duration progress_period = absl::Seconds(5);

  // Period of the core's ticker, and the gap that stops the clocks.
  absl::Duration tick = absl::Milliseconds(100);
  absl::Duration observed_gap = absl::Seconds(1);

  // All timers times `scale`. REQUIRES: scale > 0
  Timers Scaled(double scale) const;
};

inline Timers Timers::Scaled(double scale) const {
  Timers scaled = *this;
  for (absl::Duration* timer :
       {&scaled.heartbeat, &scaled.reattach_grace, &scaled.suspect_after,
        &scaled.lost_after, &scaled.restart_window, &scaled.start_timeout,
        &scaled.yield_grace, &scaled.stop_grace, &scaled.recovery_hold,
        &scaled.hang_suspicion, &scaled.progress_period, &scaled.tick,
        &scaled.observed_gap}) {
    *timer = *timer * scale;
  }
  scaled.tick = std::max(scaled.tick, absl::Milliseconds(5));
  return scaled;
}

// A clock that stands still while nobody looks at it.
class ObservedClock {
 public:
  explicit ObservedClock(absl::Duration gap) : gap_(gap) {}

  // Moves on by what passed since the call before: nothing, if that was more
  // than the gap or less than nothing.
  void Observe(absl::Time now) {
    const absl::Duration passed = now - last_;
    last_ = now;
    if (passed > absl::ZeroDuration() && passed <= gap_) observed_ += passed;
  }

  // Meaningful only in differences.
  absl::Time now() const { return observed_; }

 private:
  absl::Duration gap_;
  absl::Time last_ = absl::InfinitePast();
  absl::Time observed_ = absl::UnixEpoch();
};

}  // namespace ft
