// SPDX-License-Identifier: Apache-2.0

#include <cstdio>

#include "common/exit_code.h"
#include "common/grpc_status.h"
#include "ctl/command.h"

namespace ft {

int ExitCodeOf(const absl::Status& status) {
  // The second body of one request id is no fault of the job.
  if (ReasonOf(status) == "REQUEST_ID_REUSED") return 6;
  return ExitCodeOf(status.code());
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
