// SPDX-License-Identifier: Apache-2.0
//
// The kernel's count of processes that it killed because the memory of our
// cgroup was full. A rank that was killed is asked about at once; what nobody
// asked about in time belonged to somebody else.

#pragma once

#include <deque>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ft {

// Thread-safe. Where the count cannot be read, nothing was ever killed.
class MemoryEvents {
 public:
  // A kill that is not taken within this time is forgotten.
  static constexpr absl::Duration kMemory = absl::Seconds(10);

  // `file`: memory.events of cgroup 2, or memory.oom_control of cgroup 1.
  explicit MemoryEvents(std::string file);

  // Notes what happened since the last look.
  void Look(absl::Time now);

  // Takes all kills of the last moments for one rank. Returns how many.
  int Take(absl::Time now);

 private:
  int64_t Count() const;
  void LookLocked(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string file_;
  absl::Mutex mutex_;
  int64_t known_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<absl::Time> kills_ ABSL_GUARDED_BY(mutex_);
};

// The file of the cgroup that a process with this /proc/PID/cgroup is in, under
// a cgroup mount as `mount`; empty: none is there.
std::string FindMemoryEvents(absl::string_view cgroup,
                             const std::string& mount);

}  // namespace ft
