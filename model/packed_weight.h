// SPDX-License-Identifier: Apache-2.0
//
// A frozen weight in NF4, with or without double quantisation
// (arXiv:2305.14314; the arithmetic is in kernels/nf4.h and
// kernels/dynamic_code.h). It is expanded to fp32 for each product, into memory
// that all weights of a model share, and never saved by autograd: a model costs
// what its codes and scales cost.
//
// The tensors are plain and each may be a view: a run of 16,384 weights has its
// own codes, scales and one super-scale, so that a shard cut there stands
// alone.

#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/bitsandbytes.h"
#include "formats/model_spec.h"
#include "formats/safetensors.h"
#include "kernels/dynamic_code.h"
#include "kernels/nf4.h"

namespace ft {

// The weights that share a super-scale.
inline constexpr int64_t kPackedRun = kNf4Block * kDynamicBlock;

// The memory that weights are expanded into. It grows to the largest.
class WeightScratch {
 public:
  // fp32 of that shape; the one before is overwritten.
  at::Tensor Take(const std::vector<int64_t>& shape);

  int64_t size_bytes() const;

 private:
  at::Tensor flat_;
};

// Not thread-safe, because of the scratch.
struct PackedWeight {
  std::vector<int64_t> shape;  // [out, in]
  at::Tensor codes_u8;         // Nf4Bytes
  // Nf4Blocks: fp32, or with double quantisation codes.
  at::Tensor scales;
  at::Tensor super_scales_f32;  // DynamicBlocks of the scales; or undefined.
  float offset = 0;
  // What the codes stand for: a file's own maps win over ours.
  std::array<float, 16> values = {};
  std::shared_ptr<const DynamicCode>
      scale_code;  // Null: no double quantisation.
  std::shared_ptr<WeightScratch> scratch;

  // What its bytes lie in; each may be replaced by a tensor of the same type
  // and shape.
  std::vector<at::Tensor*> tensors() {
    std::vector<at::Tensor*> all = {&codes_u8, &scales};
    if (super_scales_f32.defined()) all.push_back(&super_scales_f32);
    return all;
  }

  int64_t numel() const;
  bool double_quant() const { return scale_code != nullptr; }
  // Of codes, scales and super-scales.
  int64_t size_bytes() const;

  // The same as a file has it; spans of this. `dtype` is that of the weight
  // before.
  StoredNf4 AsStored(DType dtype) const;

  // W [out, in], good until another weight of the same scratch is expanded.
  at::Tensor Expand() const;
};

// Quantises a tensor of a file, piece by piece: nothing of its size is held.
// The bytes do not depend on the number of threads.
// INVALID_ARGUMENT: no floating type, or a value that is not finite.
absl::StatusOr<PackedWeight> QuantizeTensor(const TensorView& view,
                                            const Nf4Quantization& options);

// Copies a stored weight out of its file.
// INVALID_ARGUMENT: a scale that is not finite; the message names no tensor.
absl::StatusOr<PackedWeight> UnpackStored(const StoredNf4& stored);

}  // namespace ft
