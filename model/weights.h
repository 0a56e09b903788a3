// SPDX-License-Identifier: Apache-2.0
//
// Files to tensors. An fp32 tensor is a view of the mapped file, so that ranks
// of one machine share its pages; other types are converted to fp32. Weights of
// linears may be quantised while they are read, one tensor at a time, or come
// quantised from the file.

#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "formats/hf_directory.h"
#include "formats/safetensors.h"
#include "model/packed_weight.h"

namespace ft {

// `view` as an fp32 tensor. It reads the mapping: the file must outlive it.
// INVALID_ARGUMENT: no floating type, or a value that is not finite.
absl::StatusOr<at::Tensor> TensorOf(const TensorView& view);

// What a model is made of, by name.
struct ModelWeights {
  absl::flat_hash_map<std::string, at::Tensor> dense;
  // Of linears; with one scratch.
  absl::flat_hash_map<std::string, std::shared_ptr<PackedWeight>> packed;
};

// Every parameter of the model. Weights of linears that are floats in the files
// are quantised with `quantize`. Pages and copies that are not needed any more
// are dropped on the way. The files must outlive the tensors.
absl::StatusOr<ModelWeights> ReadWeights(
    const HfDirectory& files, const std::optional<Nf4Quantization>& quantize);

// Whether all are finite.
bool IsFinite(std::span<const float> values);
absl::Status NotFinite(absl::string_view name);
// INVALID_ARGUMENT: elements of another kind.
absl::Status CheckIsFloating(const TensorView& view);

// The bytes of a contiguous fp32 tensor, to be written under `name`. It must
// outlive the result.
TensorBytes BytesOf(const std::string& name, const at::Tensor& tensor);

}  // namespace ft
