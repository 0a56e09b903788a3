// SPDX-License-Identifier: Apache-2.0
//
// Rows of a JSON array or of JSON lines, bounded: a row of at most 16 MiB, 64
// levels deep, valid UTF-8. One row is parsed at a time, and a bad one spoils
// no other.

#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "data/example.h"
#include "data/json_tree.h"

namespace ft {

inline constexpr int64_t kMaxDatasetBytes = int64_t{4} << 30;
inline constexpr int64_t kMaxRowBytes = 16 << 20;

struct RowPlace {
  int64_t row = 0;   // As in BadRow.
  int64_t line = 0;  // Where the row begins.
};

// Calls `on_row` for each row in turn and `on_bad` for each that is no JSON or
// over a limit; bad rows are named `name`. A file that begins with "[" is an
// array, another one JSON lines (empty lines count, but are no rows).
// NOT_FOUND: no such file. RESOURCE_EXHAUSTED: larger than kMaxDatasetBytes.
absl::Status ReadJsonRows(
    const std::string& path, absl::string_view name,
    const std::function<void(const RowPlace& place, Json row)>& on_row,
    const std::function<void(BadRow)>& on_bad);

}  // namespace ft
