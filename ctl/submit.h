// SPDX-License-Identifier: Apache-2.0
//
// From a job file to a stored job: checked here, its data uploaded, its paths
// replaced by digests.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "ctl/client.h"
#include "ft/v1/job_spec.pb.h"

namespace ft {

// Reads and checks a job file; "-" is stdin. `folder` becomes what its paths
// are relative to. INVALID_ARGUMENT: it is no job; NOT_FOUND: no such file.
absl::StatusOr<v1::JobSpec> ReadJobFile(const std::string& path,
                                        std::string& folder);

// Runs ft-train check; returns its exit code, or 0 with a word on stderr if it
// is not installed. Its findings go to stderr.
int CheckData(const std::string& job_file, bool quiet);

// Uploads the data of the spec and creates the job under `request_id`; empty: a
// new one.
absl::StatusOr<v1::Job> Submit(Client& client, v1::JobSpec spec,
                               const std::string& folder,
                               const std::string& request_id = "");

}  // namespace ft
