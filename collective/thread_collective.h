// SPDX-License-Identifier: Apache-2.0
//
// Ranks that are threads of one process: for tests, and the oracle of the other
// transports.

#pragma once

#include <memory>
#include <vector>

#include "collective/collective.h"

namespace ft {

// One Collective a rank; each may be used by one thread. They share the group,
// which lives as long as any of them.
std::vector<std::unique_ptr<Collective>> MakeThreadCollectives(int size);

}  // namespace ft
