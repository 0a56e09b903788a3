// SPDX-License-Identifier: Apache-2.0
//
// job.yaml as ftctl and ft-train read it. What is accepted must also survive
// being written and read again.

#include <google/protobuf/util/message_differencer.h>

#include "jobspec/from_yaml.h"
#include "jobspec/to_yaml.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

FT_FUZZ_TARGET(job_yaml) {
  const absl::StatusOr<v1::JobSpec> spec = ParseJobFile(input, "job.yaml");
  if (!spec.ok()) {
    FT_CHECK(absl::IsInvalidArgument(spec.status()));
    FT_CHECK(!spec.status().message().empty());
    return;
  }
  const absl::StatusOr<v1::JobSpec> again =
      ParseJobFile(SpecToYaml(*spec), "again.yaml");
  FT_CHECK(again.ok());
  FT_CHECK(google::protobuf::util::MessageDifferencer::Equals(*spec, *again));
}

}  // namespace
}  // namespace ft
