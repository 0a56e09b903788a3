// SPDX-License-Identifier: Apache-2.0
//
// The service on this machine: a coordinator and workers as processes of this
// user over folders of its own, found again by those.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ft {

// Starts what does not run and waits until it is ready. `say` is told of each.
// An error names the daemon that did not start and what its log ends with.
absl::Status StartService(int workers, void (*say)(const std::string&));

// Workers of it that run, whoever asked for them.
int CountWorkers();

// Asks all to stop, then insists.
absl::Status StopService(absl::Duration grace, void (*say)(const std::string&));

}  // namespace ft
