// SPDX-License-Identifier: Apache-2.0
//
// Looks at processes while a soak runs: ranks whose worker is gone, and how
// much memory each daemon holds.

#pragma once

#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "tests/chaos/soak_cluster.h"

namespace ft::testing {

// How the memory of a daemon went in the second half of its last life.
struct MemoryGrowth {
  absl::Duration watched;
  int64_t first_bytes = 0;  // Median of its first quarter.
  int64_t last_bytes = 0;   // Median of its last quarter.

  double ratio() const {
    return first_bytes == 0 ? 0
                            : static_cast<double>(last_bytes) /
                                      static_cast<double>(first_bytes) -
                                  1;
  }
};

class SoakMonitor {
 public:
  // `cluster` must outlive it.
  explicit SoakMonitor(SoakCluster& cluster);
  ~SoakMonitor();

  std::vector<std::string> complaints() const;

  // By daemon. A daemon that was just started has watched next to nothing.
  std::map<std::string, MemoryGrowth> Growth() const;

 private:
  using Samples = std::vector<std::pair<absl::Time, int64_t>>;

  void Loop();
  void LookAtRanks();
  void LookAtMemory();

  SoakCluster& cluster_;
  std::map<pid_t, absl::Time> orphan_since_;  // Of the loop.
  mutable absl::Mutex mutex_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::string> complaints_ ABSL_GUARDED_BY(mutex_);
  // Of the newest life.
  std::map<std::string, std::pair<int, Samples>> samples_
      ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace ft::testing
