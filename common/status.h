// SPDX-License-Identifier: Apache-2.0
//
// Errors as values. What users, networks, disks and drivers cause is an
// absl::Status; a broken invariant of our own ends the process (check.h). The
// deepest function names the fact, each caller adds one noun of context.

#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace ft {

// Returns `status` with "`context`: " put before its message. Code and payloads
// stay, so a caller can still branch on them.
// REQUIRES: !status.ok()
absl::Status Annotate(const absl::Status& status, absl::string_view context);

// The message for a failed system call: "open /x/y: No such file or directory",
// with the code that fits `error_number` (ENOENT is NOT_FOUND, ENOSPC is
// RESOURCE_EXHAUSTED, EACCES is PERMISSION_DENIED, ...).
absl::Status ErrnoStatus(int error_number, absl::string_view what);

namespace internal {
inline absl::Status Annotated(absl::Status status) { return status; }

template <typename... Pieces>
absl::Status Annotated(const absl::Status& status, const Pieces&... context) {
  return Annotate(status, absl::StrCat(context...));
}
}  // namespace internal
}  // namespace ft

// Returns from the enclosing function if `expr` is an error. Further arguments
// are the context, joined by absl::StrCat and evaluated only on error:
//
//   FT_RETURN_IF_ERROR(shard.Load(path), "checkpoint shard ", index);
#define FT_RETURN_IF_ERROR(expr, ...)                                         \
  do {                                                                        \
    if (const absl::Status ft_status = (expr); !ft_status.ok()) [[unlikely]]  \
      return ::ft::internal::Annotated(ft_status __VA_OPT__(, ) __VA_ARGS__); \
  } while (false)

// Like FT_RETURN_IF_ERROR for absl::StatusOr<T>; on success moves the value
// into `lhs`, which may declare a variable.
#define FT_ASSIGN_OR_RETURN(lhs, expr, ...)                               \
  FT_INTERNAL_ASSIGN_OR_RETURN(FT_INTERNAL_CONCAT(ft_or_, __LINE__), lhs, \
                               expr __VA_OPT__(, ) __VA_ARGS__)

#define FT_INTERNAL_ASSIGN_OR_RETURN(or_value, lhs, expr, ...)        \
  auto or_value = (expr);                                             \
  if (!or_value.ok()) [[unlikely]]                                    \
    return ::ft::internal::Annotated(or_value.status() __VA_OPT__(, ) \
                                         __VA_ARGS__);                \
  lhs = *std::move(or_value)

#define FT_INTERNAL_CONCAT(a, b) FT_INTERNAL_CONCAT_(a, b)
#define FT_INTERNAL_CONCAT_(a, b) a##b
