// SPDX-License-Identifier: Apache-2.0
//
// The wall where libtorch's exceptions end. Everything above it sees values.

#pragma once

#include <c10/util/Exception.h>

#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace ft {

// A full disk is RESOURCE_EXHAUSTED too; only what carries this ran out of
// memory.
inline constexpr char kOutOfMemoryPayload[] = "ft.out_of_memory";

inline absl::Status OutOfMemoryStatus(absl::string_view message) {
  absl::Status status = absl::ResourceExhaustedError(message);
  status.SetPayload(kOutOfMemoryPayload, absl::Cord());
  return status;
}

inline bool IsOutOfMemory(const absl::Status& status) {
  return status.GetPayload(kOutOfMemoryPayload).has_value();
}

// Calls `run`, which returns an absl::Status or StatusOr, and turns what
// libtorch throws into a status: out of memory is RESOURCE_EXHAUSTED with a
// payload, anything else INTERNAL.
template <typename Run>
auto GuardTorch(Run&& run) -> decltype(run()) {
  try {
    return std::forward<Run>(run)();
  } catch (const c10::OutOfMemoryError& error) {
    return OutOfMemoryStatus(
        absl::StrCat("libtorch: ", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    // The allocator of host memory has no type of its own.
    if (absl::StrContains(error.what_without_backtrace(),
                          "DefaultCPUAllocator")) {
      return OutOfMemoryStatus(
          absl::StrCat("libtorch: ", error.what_without_backtrace()));
    }
    return absl::InternalError(
        absl::StrCat("libtorch: ", error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return OutOfMemoryStatus("out of host memory");
  }
}

}  // namespace ft
