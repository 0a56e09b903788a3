// SPDX-License-Identifier: Apache-2.0
//
// Time as an argument, so that tests and the simulation move it.

#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace ft {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // Wall time: for people and for ids, never for a deadline.
  virtual absl::Time Now() const = 0;

  // Time since some fixed moment that never jumps: for every deadline.
  virtual absl::Duration Monotonic() const = 0;
};

// The machine's clocks.
class RealClock : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
  absl::Duration Monotonic() const override;
};

}  // namespace ft
