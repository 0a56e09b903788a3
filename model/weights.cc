// SPDX-License-Identifier: Apache-2.0

#include "model/weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

#include "common/status.h"
#include "formats/bitsandbytes.h"
#include "model/spans.h"

namespace ft {
namespace {

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

bool IsViewOf(const TensorView& view, const at::Tensor& tensor) {
  return tensor.data_ptr() == static_cast<const void*>(view.bytes.data());
}

// A weight that the files hold quantised, or that is to be.
absl::StatusOr<PackedWeight> ReadPacked(const HfDirectory& files,
                                        const ParameterSpec& parameter,
                                        const Nf4Quantization& quantize) {
  if (!IsStoredNf4(files.weights, parameter.name)) {
    FT_ASSIGN_OR_RETURN(const TensorView* view,
                        files.weights.Get(parameter.name));
    FT_ASSIGN_OR_RETURN(PackedWeight packed, QuantizeTensor(*view, quantize));
    files.weights.Forget(*view);
    return packed;
  }
  FT_ASSIGN_OR_RETURN(
      const StoredNf4 stored,
      ReadStoredNf4(files.weights, parameter.name, parameter.shape));
  FT_ASSIGN_OR_RETURN(PackedWeight packed, UnpackStored(stored), "tensor ",
                      parameter.name);
  for (const std::string& name : StoredNf4Names(parameter.name)) {
    if (const TensorView* view = files.weights.Find(name)) {
      files.weights.Forget(*view);
    }
  }
  return packed;
}

}  // namespace

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

absl::Status NotFinite(absl::string_view name) {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", name, ": holds a value that is not finite"));
}

absl::Status CheckIsFloating(const TensorView& view) {
  FT_RETURN_IF_ERROR(ToFloat(view.dtype, {}, {}), "tensor ", view.name);
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> TensorOf(const TensorView& view) {
  FT_ASSIGN_OR_RETURN(at::Tensor tensor, ReadTensor(view));
  if (!IsFinite(FloatsOf(tensor))) return NotFinite(view.name);
  return tensor;
}

absl::StatusOr<ModelWeights> ReadWeights(
    const HfDirectory& files, const std::optional<Nf4Quantization>& quantize) {
  ModelWeights weights;
  const auto scratch = std::make_shared<WeightScratch>();
  for (const ParameterSpec& parameter : files.spec.Parameters()) {
    if (parameter.role == ParameterRole::kLinearWeight &&
        (quantize.has_value() || IsStoredNf4(files.weights, parameter.name))) {
      FT_ASSIGN_OR_RETURN(
          PackedWeight packed,
          ReadPacked(files, parameter, quantize.value_or(Nf4Quantization{})));
      packed.scratch = scratch;
      weights.packed[parameter.name] =
          std::make_shared<PackedWeight>(std::move(packed));
      continue;
    }
    FT_ASSIGN_OR_RETURN(const TensorView* view,
                        files.weights.Get(parameter.name));
    FT_ASSIGN_OR_RETURN(at::Tensor tensor, TensorOf(*view));
    if (!IsViewOf(*view, tensor)) files.weights.Forget(*view);
    weights.dense[parameter.name] = std::move(tensor);
  }
  return weights;
}

TensorBytes BytesOf(const std::string& name, const at::Tensor& tensor) {
  return {.info = {.name = name,
                   .dtype = DType::kF32,
                   .shape = tensor.sizes().vec()},
          .bytes = std::as_bytes(FloatsOf(tensor))};
}

}  // namespace ft
