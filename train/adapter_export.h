// SPDX-License-Identifier: Apache-2.0
//
// The trained adapter as PEFT reads it: adapter_model.safetensors and
// adapter_config.json. The bytes depend on the parameters, and on how the base
// is quantised, alone.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "ft/v1/job_spec.pb.h"
#include "ft/v1/ranks.pb.h"
#include "model/transformer.h"

namespace ft {

// Writes the adapter of `model` into `dir`, made if missing.
absl::StatusOr<v1::ExportFiles> ExportAdapter(const Transformer& model,
                                              const v1::JobSpec& spec,
                                              const std::string& dir);

}  // namespace ft
