// SPDX-License-Identifier: Apache-2.0
//
// Rows of a JSON array or of JSON lines, bounded: a line of at most 16 MiB, 64
// levels deep, valid UTF-8.

#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "data/example.h"

namespace ft {

inline constexpr int64_t kMaxDatasetBytes = int64_t{4} << 30;
inline constexpr int64_t kMaxLineBytes = 16 << 20;
inline constexpr int kMaxJsonDepth = 64;

// Calls `on_row(row, value)` for each row, row from 1; returns the first error
// it gives. `on_bad` is told of rows that are no JSON; for an array that does
// not parse it is told once, of row 0.
// NOT_FOUND: no such file. RESOURCE_EXHAUSTED: over a limit.
absl::Status ReadJsonRows(
    const std::string& path,
    const std::function<absl::Status(int64_t row, const Json& value)>& on_row,
    const std::function<void(BadRow)>& on_bad);

}  // namespace ft
