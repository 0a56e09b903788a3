// SPDX-License-Identifier: Apache-2.0
//
// The only place where absl::Status and grpc::Status meet. Typed details
// (google.rpc.ErrorInfo, BadRequest) travel as payloads of the absl::Status
// under their type URL, and as google.rpc.Status in grpc's error details.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace grpc {
class Status;
}  // namespace grpc

namespace ft {

grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

// One wrong field of a request.
struct FieldError {
  std::string field;        // "adaptation.lora.rank"
  std::string description;  // What is wrong and what to do.
};

// `code` and `message` with google.rpc.ErrorInfo{reason, domain "ft",
// metadata}; `reason` is a name of ft.v1.Reason without its prefix.
absl::Status ErrorWithReason(
    absl::StatusCode code, absl::string_view reason, absl::string_view message,
    const std::map<std::string, std::string>& metadata = {});

// The same with google.rpc.BadRequest of every wrong field.
absl::Status BadRequestError(absl::string_view reason,
                             absl::string_view message,
                             const std::vector<FieldError>& fields);

// The reason in `status`; empty: it has none.
std::string ReasonOf(const absl::Status& status);
std::map<std::string, std::string> ReasonMetadataOf(const absl::Status& status);
std::vector<FieldError> FieldErrorsOf(const absl::Status& status);

}  // namespace ft
