// SPDX-License-Identifier: Apache-2.0
//
// JSON from strangers: duplicate keys, depth and syntax are checked, and no
// exception leaves. nlohmann's parser walks without recursion.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace ft {

// INVALID_ARGUMENT: not JSON (with line and column), a key twice in one object,
// or nested deeper than `max_depth`.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text,
                                         int max_depth = 32);

// `text` as a JSON string with its quotes; UTF-8 stays as it is.
// REQUIRES: IsUtf8(text)
std::string JsonString(absl::string_view text);

// Whether `text` is well-formed UTF-8 (no surrogates, nothing overlong).
bool IsUtf8(absl::string_view text);

}  // namespace ft
