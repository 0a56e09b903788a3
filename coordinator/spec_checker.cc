// SPDX-License-Identifier: Apache-2.0

#include "coordinator/spec_checker.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "common/id.h"

namespace ft {

absl::Status JobSpecChecker::CheckAndFix(v1::JobSpec& spec) const {
  std::vector<FieldError> wrong;
  if (spec.schema() != "ft.v1") {
    wrong.push_back({"schema", "must be ft.v1"});
  }
  if (!IsLabel(spec.name())) {
    wrong.push_back({"name", "must be [a-z0-9-]{1,63}"});
  }
  if (spec.model().base().empty())
    wrong.push_back({"model.base", "is missing"});
  if (!spec.model().digest().empty()) {
    wrong.push_back({"model.digest", "is set by the coordinator"});
  }
  if (spec.data().train().empty())
    wrong.push_back({"data.train", "is missing"});
  if (spec.resources().ranks().max() < 1) {
    wrong.push_back({"resources.ranks", "must be at least 1"});
  }
  if (!wrong.empty()) {
    return BadRequestError(
        "INVALID_SPEC",
        absl::StrCat(wrong[0].field, ": ", wrong[0].description), wrong);
  }
  if (spec.queue().empty()) spec.set_queue("default");
  if (!spec.has_priority()) spec.set_priority(50);
  return absl::OkStatus();
}

}  // namespace ft
