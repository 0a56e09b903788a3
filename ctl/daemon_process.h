// SPDX-License-Identifier: Apache-2.0
//
// Daemons as processes of this machine: started so that they outlive us, found
// again by their program and data folder. What names a pid in a file may be
// stale; /proc is not.

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ft {

struct DaemonProcess {
  pid_t pid = 0;
  std::string program;                 // "ft-worker"
  std::string data_dir;                // The value of --data_dir.
  std::vector<std::string> arguments;  // All, argv[0] first.
};

// Those of `programs` that run now.
std::vector<DaemonProcess> FindDaemons(
    const std::vector<std::string>& programs);

// Starts argv[0] in a session of its own and in the root folder, so that it
// keeps nobody's folder busy: every path in `argv` must be absolute. What it
// says is appended to `log`.
// Returns its pid once it runs; an error if the program cannot be executed.
absl::StatusOr<pid_t> SpawnDaemon(const std::vector<std::string>& argv,
                                  const std::string& log);

// Whether it still runs; one that ended and was not waited for does not.
bool IsRunning(pid_t pid);

// Whether it was told to stand still, by SIGSTOP or a debugger.
bool IsStopped(pid_t pid);

// Waits until it has ended; after `grace` kills it. It was asked to end before.
void EndProcess(pid_t pid, absl::Duration grace);

}  // namespace ft
