// SPDX-License-Identifier: Apache-2.0
//
// What the programs that people type end with, by the kind of error; a script
// branches on it. docs/ftctl.md lists the codes.

#pragma once

#include "absl/status/status.h"

namespace ft {

int ExitCodeOf(absl::StatusCode code);

// Of plan: nothing went wrong, but what was asked for needs more than there is.
inline constexpr int kExitDoesNotFit = 9;

}  // namespace ft
