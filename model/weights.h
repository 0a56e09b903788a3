// SPDX-License-Identifier: Apache-2.0
//
// Files to tensors. An fp32 tensor is a view of the mapped file, so that ranks
// of one machine share its pages; other types are converted to fp32.

#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "formats/safetensors.h"

namespace ft {

// `view` as an fp32 tensor. It reads the mapping: the file must outlive it.
// INVALID_ARGUMENT: no floating type, or a value that is not finite.
absl::StatusOr<at::Tensor> TensorOf(const TensorView& view);

// Every tensor of the files by name. They must outlive the tensors.
absl::StatusOr<absl::flat_hash_map<std::string, at::Tensor>> TensorsOf(
    const SafetensorsModel& files);

// The bytes of a contiguous fp32 tensor, to be written under `name`. It must
// outlive the result.
TensorBytes BytesOf(const std::string& name, const at::Tensor& tensor);

}  // namespace ft
