// SPDX-License-Identifier: Apache-2.0

#include "model/weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "common/status.h"
#include "model/spans.h"

namespace ft {

namespace {

// NaN and infinity have all bits of the exponent set. Without branches, so that
// it costs no more than reading the weights.
bool IsFinite(std::span<const float> values) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t worst = 0;
  for (const float value : values) {
    worst = std::max(worst, std::bit_cast<uint32_t>(value) & kExponent);
  }
  return worst != kExponent;
}

absl::StatusOr<at::Tensor> ReadTensor(const TensorView& view) {
  const auto address = reinterpret_cast<uintptr_t>(view.bytes.data());
  if (view.dtype == DType::kF32 && address % sizeof(float) == 0) {
    // Frozen weights are never written; the mapping is read-only.
    return at::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape,
                         at::TensorOptions().dtype(at::kFloat));
  }
  at::Tensor tensor =
      at::empty(view.shape, at::TensorOptions().dtype(at::kFloat));
  FT_RETURN_IF_ERROR(ToFloat(view.dtype, view.bytes, FloatsOf(tensor)),
                     "tensor ", view.name);
  return tensor;
}

}  // namespace

absl::StatusOr<at::Tensor> TensorOf(const TensorView& view) {
  FT_ASSIGN_OR_RETURN(at::Tensor tensor, ReadTensor(view));
  if (!IsFinite(FloatsOf(tensor))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", view.name, ": holds a value that is not finite"));
  }
  return tensor;
}

absl::StatusOr<absl::flat_hash_map<std::string, at::Tensor>> TensorsOf(
    const SafetensorsModel& files) {
  absl::flat_hash_map<std::string, at::Tensor> tensors;
  for (const TensorView* view : files.tensors()) {
    FT_ASSIGN_OR_RETURN(tensors[view->name], TensorOf(*view));
  }
  return tensors;
}

TensorBytes BytesOf(const std::string& name, const at::Tensor& tensor) {
  return {.info = {.name = name,
                   .dtype = DType::kF32,
                   .shape = tensor.sizes().vec()},
          .bytes = std::as_bytes(FloatsOf(tensor))};
}

}  // namespace ft
