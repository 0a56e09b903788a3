// SPDX-License-Identifier: Apache-2.0
//
// The service on this machine: a coordinator and workers as processes of this
// user, found again by their endpoint files.

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ft {

// A process that an endpoint file names; pid 0: none that lives.
struct ServiceProcess {
  pid_t pid = 0;
  std::string name;  // "coordinator", "w-1"
};

// What of the service lives now.
std::vector<ServiceProcess> LivingProcesses();

// Starts what does not live and waits until it is ready. `say` is told of each.
absl::Status StartService(int workers, void (*say)(const std::string&));

// Asks all to stop, then insists.
absl::Status StopService(absl::Duration grace, void (*say)(const std::string&));

}  // namespace ft
