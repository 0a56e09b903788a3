// SPDX-License-Identifier: Apache-2.0
//
// The service on this machine: a coordinator and workers as processes of this
// user over folders of its own, found again by those.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ft {

struct RunningService {
  std::string client_address;
  std::string http_address;
  std::vector<std::string> workers;  // All that run, whoever asked for them.
};

// Starts what does not run and waits until it is ready. `say` is told of each.
// An error names the daemon that did not start and what its log ends with.
absl::StatusOr<RunningService> StartService(int workers,
                                            void (*say)(const std::string&));

// Asks all to stop, then insists; returns the names of those that ran.
absl::StatusOr<std::vector<std::string>> StopService(
    absl::Duration grace, void (*say)(const std::string&));

}  // namespace ft
