// SPDX-License-Identifier: Apache-2.0
//
// The text of a job file, as a user names it.

#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace ft {

// Reads the file `path`; "-": standard input. INVALID_ARGUMENT: a folder, or
// larger than any job file. NOT_FOUND: it is not there.
absl::StatusOr<std::string> ReadJobText(const std::string& path);

}  // namespace ft
