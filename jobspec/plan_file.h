// SPDX-License-Identifier: Apache-2.0
//
// `ftctl plan` and `ft-train plan` alike: a job file and a config.json to a
// plan. Nothing else is read, neither weights nor data.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "jobspec/plan_job.h"

namespace ft {

struct PlanRequest {
  std::string job_file;  // "-": stdin.
  // A config.json or the folder of one; empty: model.base of the job file,
  // under `model_root` or beside the file.
  std::string model;
  std::string model_root;
  PlanOptions options;
};

// A job of CPU ranks is compared with this machine's memory if no other is
// given.
// INVALID_ARGUMENT: the job file, the model's file or what they are together is
// wrong; a line a fault. NOT_FOUND: there is no such file.
absl::StatusOr<JobPlan> PlanJobFile(const PlanRequest& request);

// A size of the command line. "" or what is wrong with it.
std::string WrongSize(const std::string& text);

}  // namespace ft
