// SPDX-License-Identifier: Apache-2.0
//
// One rank at this worker: its process, the socketpair to it, what it prints.
// Two threads: one reads the link and then waits for the process, one reads the
// output. Callbacks run on them.

#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "ft/v1/ranks.pb.h"
#include "worker/exit_report.h"
#include "worker/rank_process.h"

namespace ft {

class RankLink {
 public:
  struct Callbacks {
    std::function<void(int rank, const v1::FromRank&)> on_message;
    std::function<void(int rank, const std::string& line)> on_line;
    // A line found no room in the log file.
    std::function<void()> on_full_log;
    // Once, after the last message: the process is gone.
    std::function<void(const RankEnding&)> on_end;
  };

  // `log_file` gets every line.
  RankLink(int rank, SpawnedRank process, const std::string& log_file,
           Callbacks callbacks);
  // Kills the rank if it still lives, and waits.
  ~RankLink();

  void Send(const v1::ToRank& message);
  // Sends a duplicate of `descriptor` along.
  void SendWithFd(const v1::ToRank& message, int descriptor);
  void Kill();

 private:
  void ReadLink();
  void ReadOutput(const std::string& log_file);
  void TakeLine(std::string line, int log_fd);

  const int rank_;
  SpawnedRank process_;
  const Callbacks callbacks_;

  absl::Mutex mutex_;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  bool killed_ ABSL_GUARDED_BY(mutex_) = false;
  bool output_over_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<v1::RankExit> last_words_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::string> tail_ ABSL_GUARDED_BY(mutex_);

  std::thread output_thread_;
  std::thread link_thread_;
};

}  // namespace ft
