// SPDX-License-Identifier: Apache-2.0

#include "coordinator/spec_checker.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "jobspec/defaults.h"
#include "jobspec/validate.h"

namespace ft {
namespace {

// An error travels in the metadata of a reply, which hold 8 KiB, once as text
// and once as details. Users' own tools tell all violations.
constexpr size_t kMaxTold = 1024;

// A name under a worker's model root: [a-z0-9][a-z0-9._-]{0,62}.
bool IsModelName(const std::string& name) {
  return !name.empty() && name.size() <= 63 && absl::ascii_isalnum(name[0]) &&
         std::ranges::all_of(name, [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) ||
                  c == '.' || c == '_' || c == '-';
         });
}

}  // namespace

absl::Status JobSpecChecker::CheckAndFix(v1::JobSpec& spec) const {
  Violations violations;
  ValidateSpec(spec, SpecOrigin::kSubmitted, violations);
  const std::string& base = spec.model().base();
  if (!base.empty() && !IsModelName(base)) {
    violations.Add("model.base",
                   absl::StrCat("\"", base.substr(0, 80),
                                "\" is no name of a model under the workers' "
                                "model root; see ftctl model ls"));
  }
  if (!spec.model().digest().empty()) {
    violations.Add("model.digest", "is set by the coordinator; leave it out");
  }
  if (violations.empty()) {
    ApplyDefaults(spec);
    return absl::OkStatus();
  }
  std::vector<FieldError> fields;
  std::string message;
  for (const Violation& violation : violations.list()) {
    if (message.size() >= kMaxTold) break;
    fields.push_back({violation.field, violation.what});
    absl::StrAppend(&message, message.empty() ? "" : "\n", violation.field,
                    ": ", violation.what);
  }
  if (const size_t left = violations.list().size() - fields.size(); left > 0) {
    absl::StrAppend(&message, "\nand ", left, " more");
  }
  return BadRequestError("INVALID_SPEC", message, fields);
}

}  // namespace ft
