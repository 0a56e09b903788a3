// SPDX-License-Identifier: Apache-2.0
//
// A model directory to one whose linears are stored in NF4, in the layout of
// bitsandbytes (formats/bitsandbytes.h).

#pragma once

#include <string>

#include "absl/status/status.h"
#include "formats/model_import.h"
#include "formats/model_spec.h"

namespace ft {

// Makes `out_dir` from the model in `dir`: weights of linears are quantised,
// one tensor at a time, all others and the tokenizer's files are as before.
// ALREADY_EXISTS: `out_dir` is there. INVALID_ARGUMENT: the model is broken, or
// its linears are in 4 bits already. Nothing is left behind on error.
absl::Status QuantizeModel(const std::string& dir, const std::string& out_dir,
                           const Nf4Quantization& options,
                           const ImportProgressFn& progress = nullptr);

}  // namespace ft
