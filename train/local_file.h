// SPDX-License-Identifier: Apache-2.0
//
// What a daemon is told of a file that a rank has written: path, size, digest.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "ft/v1/ranks.pb.h"

namespace ft {

// Reads `dir`/`name`; the path in the result is `name`.
absl::StatusOr<v1::LocalFile> DescribeFile(const std::string& dir,
                                           const std::string& name);

}  // namespace ft
