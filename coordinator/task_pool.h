// SPDX-License-Identifier: Apache-2.0
//
// A few threads for what may block on the disk, so that a gRPC handler never
// does.

#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace ft {

// Thread-safe. Tasks start in the order of Run; those not started when the pool
// goes are run first.
class TaskPool {
 public:
  explicit TaskPool(int threads);
  ~TaskPool();

  void Run(std::function<void()> task);

 private:
  void Work();

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace ft
