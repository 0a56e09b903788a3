// SPDX-License-Identifier: Apache-2.0
//
// Ranks that are threads of one process: for tests, and the oracle of the other
// transports.

#pragma once

#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "collective/collective.h"

namespace ft {

// One Collective a rank; each may be used by one thread. They share the group,
// which lives as long as any of them. A rank that does not come within
// `timeout` is an error on all.
std::vector<std::unique_ptr<Collective>> MakeThreadCollectives(
    int size, absl::Duration timeout = absl::Seconds(60));

}  // namespace ft
