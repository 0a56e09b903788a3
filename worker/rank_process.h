// SPDX-License-Identifier: Apache-2.0
//
// One ft-train process. It is forked by a thread that lives as long as the
// daemon (PDEATHSIG fires when the forking *thread* ends), leads a process
// group of its own, and dies with the daemon whatever happens.

#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/file.h"

namespace ft {

struct SpawnedRank {
  pid_t pid = -1;
  UniqueFd link;    // Our end of the socketpair.
  UniqueFd output;  // Reads what the rank prints.
};

// Forks ranks from one permanent thread. Thread-safe.
class RankSpawner {
 public:
  RankSpawner();
  ~RankSpawner();

  // Starts `program rank --workspace DIR --link_fd 3`; one that stands by waits
  // for its Start as long as we live.
  absl::StatusOr<SpawnedRank> Spawn(const std::string& program,
                                    const std::string& workspace,
                                    bool stands_by = false);

 private:
  struct Request;
  void Loop();

  absl::Mutex mutex_;
  std::vector<Request*> requests_ ABSL_GUARDED_BY(mutex_);
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// How a process ended.
struct RankEnd {
  int exit_code = 0;  // If signal is 0.
  int signal = 0;
};

// Waits for the process; nobody else may.
RankEnd WaitForRank(pid_t pid);

// Kills the rank and all it started.
void KillRank(pid_t pid);

}  // namespace ft
