// SPDX-License-Identifier: Apache-2.0
//
// The wall where libtorch's exceptions end. Everything above it sees values.

#pragma once

#include <c10/util/Exception.h>

#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ft {

// Calls `run`, which returns an absl::Status or StatusOr, and turns what
// libtorch throws into a status: out of memory is RESOURCE_EXHAUSTED, anything
// else INTERNAL.
template <typename Run>
auto GuardTorch(Run&& run) -> decltype(run()) {
  try {
    return std::forward<Run>(run)();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("libtorch: ", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    return absl::InternalError(
        absl::StrCat("libtorch: ", error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of host memory");
  }
}

}  // namespace ft
