// SPDX-License-Identifier: Apache-2.0

#include "common/clock.h"

#include <chrono>

namespace ft {

absl::Duration RealClock::Monotonic() const {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace ft
