// SPDX-License-Identifier: Apache-2.0
//
// NF4, the 4-bit normal float of QLoRA (arXiv:2305.14314), byte for byte as
// bitsandbytes stores it. A tensor is taken flat, row after row, in blocks of
// 64 weights that run across rows; the last may be short.
//
//   absmax_b = max |x|                         over the block
//   s = clamp(x * (1 / absmax_b), -1, 1)       fp32
//   code = how many of the 15 midpoints between values are below s
//   x' = value[code] * absmax_b                fp32
//
// A tie goes to the lower code, a block of zeros has code 7 (zero) throughout.
// Byte i holds code 2i in its high half and code 2i + 1 in its low one; behind
// an odd count stands a code 7.

#pragma once

#include <cstdint>
#include <span>

#include "kernels/nf4_table.h"

namespace ft {

inline constexpr int64_t kNf4Block = 64;

constexpr int64_t Nf4Blocks(int64_t weights) {
  return (weights + kNf4Block - 1) / kNf4Block;
}
constexpr int64_t Nf4Bytes(int64_t weights) { return (weights + 1) / 2; }

// REQUIRES: weights are finite; packed has Nf4Bytes, absmax Nf4Blocks elements
void Nf4Quantize(std::span<const float> weights, std::span<uint8_t> packed,
                 std::span<float> absmax);
void Nf4QuantizeReference(std::span<const float> weights,
                          std::span<uint8_t> packed, std::span<float> absmax);

// What the codes stand for; a file may hold other values than ours.
using Nf4Values = std::span<const float, 16>;

// REQUIRES: the same sizes
void Nf4Dequantize(std::span<const uint8_t> packed,
                   std::span<const float> absmax, std::span<float> weights,
                   Nf4Values values = Nf4Values(kNf4Values));
void Nf4DequantizeReference(std::span<const uint8_t> packed,
                            std::span<const float> absmax,
                            std::span<float> weights,
                            Nf4Values values = Nf4Values(kNf4Values));

}  // namespace ft
