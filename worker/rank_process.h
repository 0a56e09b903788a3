// SPDX-License-Identifier: Apache-2.0
//
// One ft-train as a child: started by fork and exec from the daemon's permanent
// thread (the death signal fires when the forking *thread* ends), with one end
// of a socketpair as descriptor 3, a process group of its own, and the daemon's
// death as its own.

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/file.h"

namespace ft {

// The rank's end of the socketpair.
inline constexpr int kRankLinkFd = 3;

struct RankProgram {
  std::string path;                    // Absolute.
  std::vector<std::string> arguments;  // Without argv[0].
  std::string work_dir;
};

// How a process ended.
struct ExitStatus {
  int exit_code = 0;
  int signal = 0;  // 0: it exited.
};

// A running child. Descriptors are close-on-exec; `link` and `output` do not
// block.
struct SpawnedRank {
  pid_t pid = -1;
  UniqueFd pid_fd;  // Readable when it has ended.
  UniqueFd link;
  UniqueFd output;  // Its stdout and stderr.
};

// Call it from a thread that lives as long as the ranks may.
// NOT_FOUND, PERMISSION_DENIED: the program cannot be run.
absl::StatusOr<SpawnedRank> SpawnRank(const RankProgram& program);

// SIGKILL to the rank and whatever it started. REQUIRES: it was not reaped.
void KillRankTree(pid_t pid);

// Whether it has ended, without taking its status.
bool HasEnded(pid_t pid);

// Takes the status of a child that has ended.
ExitStatus Reap(pid_t pid);

// Processor time that the process has used so far, in seconds; 0: it is gone.
double CpuSeconds(pid_t pid);

}  // namespace ft
