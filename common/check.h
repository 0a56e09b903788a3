// SPDX-License-Identifier: Apache-2.0
//
// FT_CHECK: a broken invariant of our own ends the process at once, because
// restarting is fast and loses nothing. Never for what a user, a network, a
// disk or a driver can cause: that is an absl::Status. (libtorch's headers own
// the names CHECK and LOG.)

#pragma once

#include "absl/strings/string_view.h"

namespace ft::internal {
[[noreturn]] void CheckFailed(const char* file, int line,
                              const char* condition);
}  // namespace ft::internal

#define FT_CHECK(condition)                                        \
  do {                                                             \
    if (!(condition)) [[unlikely]]                                 \
      ::ft::internal::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)
