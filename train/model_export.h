// SPDX-License-Identifier: Apache-2.0
//
// The trained model as transformers reads it: the files of the model that it
// was made from, with the weights that have learned. Elements have the type
// that they have there: fp32 as it is, bf16 and fp16 rounded once.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "collective/collective.h"
#include "ft/v1/ranks.pb.h"
#include "train/sharded_model.h"

namespace ft {

// Writes `model`, which was loaded from `source_dir`, into `dir`, made anew,
// tensor by tensor: no rank ever holds more than it does in training.
// Collective; rank 0 writes and gets the files. Where its disk is full, every
// rank gets that status.
absl::StatusOr<v1::ExportFiles> ExportModel(ShardedModel& model,
                                            Collective& ranks,
                                            const std::string& source_dir,
                                            const std::string& dir);

}  // namespace ft
