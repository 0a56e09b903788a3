// SPDX-License-Identifier: Apache-2.0
//
// How long to wait before the next try: full jitter, so that a thousand
// clients that lost one server do not come back in one moment.

#pragma once

#include <algorithm>
#include <random>

#include "absl/time/time.h"

namespace ft {

// Waits uniform in [least, min(cap, least * 2^n)]. Not thread-safe.
class Backoff {
 public:
  Backoff(absl::Duration least, absl::Duration cap, uint64_t seed)
      : least_(least), cap_(cap), ceiling_(least), random_(seed) {}

  absl::Duration Next() {
    std::uniform_real_distribution<double> share(0, 1);
    const absl::Duration wait = least_ + (ceiling_ - least_) * share(random_);
    ceiling_ = std::min(cap_, ceiling_ * 2);
    return wait;
  }

  void Reset() { ceiling_ = least_; }

 private:
  const absl::Duration least_;
  const absl::Duration cap_;
  absl::Duration ceiling_;
  std::mt19937_64 random_;
};

}  // namespace ft
