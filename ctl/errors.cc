// SPDX-License-Identifier: Apache-2.0

#include <cstdio>

#include "common/grpc_status.h"
#include "ctl/command.h"

namespace ft {

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
      // The second body of one request id is no fault of the job.
      return ReasonOf(status) == "REQUEST_ID_REUSED" ? 6 : 3;
    case absl::StatusCode::kNotFound:
      return 4;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return 5;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
      return 6;
    case absl::StatusCode::kUnavailable:
      return 7;
    case absl::StatusCode::kDeadlineExceeded:
      return 8;
    default:
      return 1;
  }
}

int Fail(const absl::Status& status) {
  // What was printed before stands before.
  std::fflush(stdout);
  const std::vector<FieldError> fields = FieldErrorsOf(status);
  for (const FieldError& field : fields) {
    std::fprintf(stderr, "%s: %s\n", field.field.c_str(),
                 field.description.c_str());
  }
  if (fields.empty()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  }
  if (absl::IsUnavailable(status)) {
    std::fprintf(stderr, "Is the service up? Start it with: ftctl up\n");
  }
  return ExitCodeOf(status);
}

}  // namespace ft
