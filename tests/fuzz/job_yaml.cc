// SPDX-License-Identifier: Apache-2.0
//
// job.yaml as ftctl and ft-train read it. What is accepted must also survive
// being written and read again.

#include <google/protobuf/util/message_differencer.h>

#include "jobspec/from_yaml.h"
#include "jobspec/plan_job.h"
#include "jobspec/plan_text.h"
#include "jobspec/to_yaml.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

// A job that cannot run yet has a plan all the same; ledgers have no holes.
void CheckPlan(absl::string_view input) {
  std::vector<std::string> not_yet;
  const absl::StatusOr<v1::JobSpec> spec =
      ParseJobFileToPlan(input, "job.yaml", not_yet);
  if (!spec.ok()) {
    FT_CHECK(absl::IsInvalidArgument(spec.status()));
    return;
  }
  static const ModelShape model{.family = "llama",
                                .vocab_size = 256,
                                .hidden_size = 64,
                                .intermediate_size = 88,
                                .num_layers = 2,
                                .num_heads = 4,
                                .num_kv_heads = 2,
                                .head_dim = 16,
                                .max_position = 2048};
  const absl::StatusOr<JobPlan> plan =
      PlanJob(*spec, model, {.device_memory = int64_t{1} << 30});
  if (!plan.ok()) {
    FT_CHECK(absl::IsInvalidArgument(plan.status()));
    return;
  }
  FT_CHECK(plan->memory.device_bytes > 0 && plan->memory.host_bytes > 0);
  FT_CHECK(*plan->fits || plan->proposals.empty() ||
           plan->proposal.has_value() != plan->nearest.has_value());
  FT_CHECK(!PlanText(*plan).empty());
}

FT_FUZZ_TARGET(job_yaml) {
  CheckPlan(input);
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
