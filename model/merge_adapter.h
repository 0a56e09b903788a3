// SPDX-License-Identifier: Apache-2.0
//
// Folds a LoRA adapter into its base:
//
//   W' = fp32(W) + s B A     in fp32, rounded once to the type of the files
//
// W is what the adapter was trained on: of a quantised base the values that its
// codes stand for. Adapted weights are never quantised again, because a step
// between two codes is larger than most updates.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "formats/dtype.h"
#include "formats/model_import.h"
#include "formats/model_spec.h"

namespace ft {

struct MergeOptions {
  DType dtype = DType::kBF16;  // Of the files: kBF16 or kF32.
  // Whether `base` is meant; else it is as the adapter's file says.
  bool overrides_base = false;
  // How a base of floats is quantised first; nothing: not at all.
  std::optional<Nf4Quantization> base;
  int64_t max_shard_bytes = 5'000'000'000;
};

// What rounding has left of the update of a block.
struct LayerMerge {
  int64_t layer = 0;
  // ||applied - wanted|| / ||wanted|| over the block's linears, Frobenius; 0
  // where nothing is wanted.
  double error = 0;
};

struct MergeReport {
  std::optional<Nf4Quantization> base;  // How it was quantised.
  std::vector<LayerMerge> layers;       // Of the adapted blocks, ascending.
  std::vector<std::string> warnings;
};

// Makes the model directory `out_dir`, tensor by tensor. ALREADY_EXISTS:
// `out_dir` is there. INVALID_ARGUMENT: model or adapter are broken or do not
// belong together, or a merged weight is not finite. Nothing is left behind on
// error.
absl::StatusOr<MergeReport> MergeAdapter(
    const std::string& model_dir, const std::string& adapter_dir,
    const std::string& out_dir, const MergeOptions& options,
    const ImportProgressFn& progress = nullptr);

}  // namespace ft
