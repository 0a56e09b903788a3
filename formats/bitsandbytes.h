// SPDX-License-Identifier: Apache-2.0
//
// NF4 weights as bitsandbytes stores them in safetensors, which transformers
// and vLLM load. A weight W of n elements is several tensors:
//
//   W                              U8 [(n + 1) / 2, 1]  two codes a byte
//   W.absmax                       a scale a block of 64: F32, or with double
//                                  quantisation U8, codes of scales
//   W.quant_map                    F32 [16]   what a code stands for
//   W.nested_absmax                F32, one for 256 scales   ) with double
//   W.nested_quant_map             F32 [256]                 ) quantisation
//   W.quant_state.bitsandbytes__nf4   U8, JSON: shape, element type, offset
//
// The arithmetic is that of kernels/nf4.h and kernels/dynamic_code.h.

#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/dtype.h"
#include "formats/model_writer.h"
#include "formats/safetensors.h"

namespace ft {

// Weights that share a scale, and scales that share one: no other sizes are
// read.
inline constexpr int64_t kStoredNf4Block = 64;
inline constexpr int64_t kStoredScaleBlock = 256;

// A stored weight whose sizes fit each other. Spans are those of the mapped
// file and may lie at any address.
struct StoredNf4 {
  std::vector<int64_t> shape;  // Of the weight.
  DType dtype = DType::kF32;   // Of the weight before it was quantised.
  std::span<const std::byte> codes;
  std::array<float, 16> values = {};  // Ascend; finite.
  bool double_quant = false;
  std::span<const std::byte> scales;  // fp32, or codes with double_quant.
  // Only with double_quant: fp32 scales of the codes of scales, what those
  // codes stand for (ascending, finite), and what is added.
  std::span<const std::byte> super_scales;
  std::array<float, 256> scale_values = {};
  float offset = 0;

  int64_t numel() const;
};

// Whether the files hold the weight `name` ("….q_proj.weight") in this form.
bool IsStoredNf4(const SafetensorsModel& weights, absl::string_view name);

// The tensors that belong to the weight `name`, itself among them.
std::vector<std::string> StoredNf4Names(absl::string_view name);

// Reads the weight `name`, which must have `shape`. Only what is small is
// looked at: scales are not checked to be finite.
// INVALID_ARGUMENT: sizes, types or values are not as they must be;
// UNIMPLEMENTED: another block size. Both name the tensor.
absl::StatusOr<StoredNf4> ReadStoredNf4(const SafetensorsModel& weights,
                                        const std::string& name,
                                        const std::vector<int64_t>& shape);

// The tensors of a weight to be written, in any order; with the same arguments
// the same sizes, whatever the values.
std::vector<TensorInfo> StoredNf4Infos(const std::string& name,
                                       const std::vector<int64_t>& shape,
                                       DType dtype, bool double_quant);

// Writes the tensors of a weight, which StoredNf4Infos declared.
absl::Status WriteStoredNf4(const std::string& name, const StoredNf4& weight,
                            ModelWriter& writer);

// config.json with the quantization_config that makes transformers load such
// weights and compute in `compute_dtype`; and without any, for weights of
// `dtype`. Other keys keep their order.
// REQUIRES: `config_json` was accepted by ParseModelSpec
std::string WithNf4Config(absl::string_view config_json, DType compute_dtype,
                          bool double_quant);
std::string WithoutQuantizationConfig(absl::string_view config_json,
                                      DType dtype);

}  // namespace ft
