// SPDX-License-Identifier: Apache-2.0
//
// How much of a test runs: little after each change, more at night.

#pragma once

#include <cstdlib>

#include "absl/strings/numbers.h"
#include "common/check.h"

namespace ft::testing {

// The number in the variable `name`, else `by_default`.
inline int SizeFrom(const char* name, int by_default) {
  const char* wanted = std::getenv(name);
  if (wanted == nullptr) return by_default;
  int size = 0;
  FT_CHECK(absl::SimpleAtoi(wanted, &size));
  return size;
}

// What costs ten times as much under a sanitizer, which looks for something
// else: there each so-many-th case alone.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr int kSanitizerStride = 7;
#else
inline constexpr int kSanitizerStride = 1;
#endif

}  // namespace ft::testing
