// SPDX-License-Identifier: Apache-2.0
//
// Identifiers that people type: job ids sort by time and have no characters
// that look alike.

#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ft {

// "job-" and 12 characters of Crockford's base 32: 42 bits of milliseconds
// since 1970, 18 bits of `counter`.
std::string MakeJobId(absl::Time now, uint32_t counter);
bool IsJobId(absl::string_view text);

// Random, for a request that may be sent again.
std::string MakeRequestId();

// 1 to 64 characters of [A-Za-z0-9_-].
bool IsRequestId(absl::string_view text);

// [a-z0-9-]{1,63}.
bool IsLabel(absl::string_view text);

}  // namespace ft
