// SPDX-License-Identifier: Apache-2.0

#include "coordinator/reasons.h"

#include "absl/strings/strip.h"

namespace ft {

absl::Status ReasonError(absl::StatusCode code, v1::Reason reason,
                         absl::string_view message,
                         const std::map<std::string, std::string>& metadata) {
  return ErrorWithReason(
      code, absl::StripPrefix(v1::Reason_Name(reason).c_str(), "REASON_"),
      message, metadata);
}

}  // namespace ft
