// SPDX-License-Identifier: Apache-2.0
//
// What a job will need before it runs: bytes of a rank's device, of its host
// and of the disk, whether they are there and, if not, the cheapest change of
// the job file with which they would be. plan_memory.h is the arithmetic; here
// a job file becomes its questions.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ft/v1/job_spec.pb.h"
#include "jobspec/plan_memory.h"
#include "jobspec/plan_question.h"

namespace ft {

// The job file with some changes: those that cost the least, among all whose
// dearest change is the same.
struct PlanProposal {
  std::vector<PlanChange> changes;
  double device_bytes = 0;  // Of a rank; 0 without a device.
  double host_bytes = 0;    // Of a rank.
  int ranks = 1;
  bool fits = false;
};

// What is there, and what of it is needed.
struct PlanLimit {
  std::string what;  // "device memory of a rank"
  double needed = 0;
  double available = 0;
  bool fits() const { return needed <= available; }
};

struct JobPlan {
  std::string job;
  std::string family;
  bool can_be_trained = false;  // By this version: its family, not its job.
  std::string method;           // "LoRA of rank 16 over NF4"
  int ranks = 1;
  bool on_device = false;
  int zero_stage = 0;

  // Of a lane's micro-batch, at most.
  int64_t micro = 1;
  int64_t longest = 0;
  MemoryQuestion question;
  MemoryPlan memory;
  std::vector<MemoryTerm> disk_terms;
  double disk_bytes = 0;

  std::vector<PlanLimit> limits;
  // Unset: no limit is known.
  std::optional<bool> fits;
  // If it does not fit: the cheapest first. `proposal` is the first of them
  // that fits on as many ranks, else the first that fits; `nearest`, if none
  // does, the one that needs the least.
  std::vector<PlanProposal> proposals;
  std::optional<size_t> proposal;
  std::optional<size_t> nearest;

  double gflop_per_token = 0;
  // Unset: not known.
  std::optional<double> step_seconds;
  std::optional<double> total_seconds;

  std::vector<std::string> notes;
  // What this version cannot run yet, a line each.
  std::vector<std::string> not_yet;
};

// Plans `spec`, which must be valid but for what is not there yet; its defaults
// are applied here.
// INVALID_ARGUMENT: what the spec says does not fit the model or the options; a
// line a fault, "adaptation.lora.targets: ...".
absl::StatusOr<JobPlan> PlanJob(v1::JobSpec spec, const ModelShape& model,
                                const PlanOptions& options);

}  // namespace ft
