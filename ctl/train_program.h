// SPDX-License-Identifier: Apache-2.0
//
// ftctl links no torch: what needs it is done by the ft-train beside it.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ft {

// NOT_FOUND: ft-train is not installed beside ftctl.
absl::StatusOr<std::string> FindTrainProgram();

// Runs it and returns its exit code. Its output goes where ours goes; with
// `output` what it prints goes there instead.
absl::StatusOr<int> RunTrainProgram(const std::vector<std::string>& words,
                                    std::string* output = nullptr);

}  // namespace ft
