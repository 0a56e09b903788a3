// SPDX-License-Identifier: Apache-2.0
//
// Files that strangers give us, such as those of a model. What is no file, a
// named pipe or a device, may have no end, or no beginning: it is not opened.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ft {

// INVALID_ARGUMENT: it is there and no regular file, links followed.
absl::Status CheckIsRegularFile(const std::string& path);

// ReadFile (file.h) of a regular file.
absl::StatusOr<std::string> ReadRegularFile(const std::string& path,
                                            int64_t max_bytes);

}  // namespace ft
