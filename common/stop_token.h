// SPDX-License-Identifier: Apache-2.0
//
// SIGTERM and SIGINT as an orderly stop: the first asks, the second insists.

#pragma once

#include <atomic>

#include "absl/time/time.h"

namespace ft {

// One for the process. Create it before any thread is started.
class StopSignals {
 public:
  // Takes over SIGTERM and SIGINT, and ignores SIGPIPE.
  static StopSignals& Install();

  // How many have come.
  int count() const { return count_.load(); }
  const std::atomic<int>& counter() const { return count_; }

  // Readable from the first signal on, for poll().
  int fd() const { return read_fd_; }

  // Waits until `wanted` signals have come; false after `timeout`.
  bool Wait(int wanted, absl::Duration timeout) const;

 private:
  StopSignals();
  static void Handle(int);

  std::atomic<int> count_{0};
  int read_fd_ = -1;
  int write_fd_ = -1;
};

}  // namespace ft
