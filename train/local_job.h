// SPDX-License-Identifier: Apache-2.0
//
// A job file on this machine, without a coordinator: its paths resolved beside
// the file, its model a directory or a name under a model root.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "train/job.h"

namespace ft {

// The folder of models: $FT_MODEL_ROOT, or models/ under $XDG_DATA_HOME/ft.
std::string DefaultModelRoot();

// Rank 0 of a world of one; workspace is left empty.
// INVALID_ARGUMENT: every violation of the job file, a model or data file that
// is missing among them. NOT_FOUND: the job file is.
absl::StatusOr<RankJob> LoadLocalJob(const std::string& job_file,
                                     const std::string& model_root);

}  // namespace ft
