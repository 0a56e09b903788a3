// SPDX-License-Identifier: Apache-2.0
//
// Amounts as people write them.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ft {

// "24GiB", "1.5 GB", "512" -> bytes. Units: B, kB, MB, GB, TB (powers of 1000),
// KiB, MiB, GiB, TiB (powers of 1024).
// INVALID_ARGUMENT: no such number or unit, negative, or over 2^62.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);

// "24.0 GiB", "512 B".
std::string FormatBytes(int64_t bytes);

}  // namespace ft
