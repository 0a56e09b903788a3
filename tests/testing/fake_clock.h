// SPDX-License-Identifier: Apache-2.0
//
// A clock that only a test moves.

#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"

namespace ft::testing {

// Thread-safe.
class FakeClock : public Clock {
 public:
  absl::Time Now() const override {
    absl::MutexLock lock(&mutex_);
    return absl::FromUnixSeconds(1'800'000'000) + passed_;
  }
  absl::Duration Monotonic() const override {
    absl::MutexLock lock(&mutex_);
    return passed_;
  }
  void Advance(absl::Duration by) {
    absl::MutexLock lock(&mutex_);
    passed_ += by;
  }

 private:
  mutable absl::Mutex mutex_;
  absl::Duration passed_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(1000);
};

}  // namespace ft::testing
