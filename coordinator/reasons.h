// SPDX-License-Identifier: Apache-2.0
//
// Errors that carry a Reason of errors.proto, so that programs branch on a word
// and not on a sentence.

#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/grpc_status.h"
#include "ft/v1/errors.pb.h"

namespace ft {

// An error with a reason, and `metadata` for programs (an offset, names).
absl::Status ReasonError(
    absl::StatusCode code, v1::Reason reason, absl::string_view message,
    const std::map<std::string, std::string>& metadata = {});

}  // namespace ft
