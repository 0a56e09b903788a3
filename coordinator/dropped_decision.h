// SPDX-License-Identifier: Apache-2.0
//
// What is still told of a decision whose transaction failed because the store
// is full: callers are refused, workers that wanted to attach try again, and
// heartbeats are answered.

#pragma once

#include <vector>

#include "absl/status/status.h"
#include "coordinator/decision.h"

namespace ft {

// Pure; the rest of the decision's effects must never be released.
std::vector<Effect> EffectsOfDropped(const Decision& decision,
                                     const absl::Status& error);

}  // namespace ft
