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

#include <array>
#include <cstdint>
#include <span>

namespace ft {

inline constexpr int64_t kNf4Block = 64;

// The values that codes stand for, ascending, from -1 to 1.
inline constexpr std::array<float, 16> kNf4Values = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

constexpr int64_t Nf4Blocks(int64_t weights) {
  return (weights + kNf4Block - 1) / kNf4Block;
}
constexpr int64_t Nf4Bytes(int64_t weights) { return (weights + 1) / 2; }

// REQUIRES: weights are finite; packed has Nf4Bytes, absmax Nf4Blocks elements
void Nf4Quantize(std::span<const float> weights, std::span<uint8_t> packed,
                 std::span<float> absmax);
void Nf4QuantizeReference(std::span<const float> weights,
                          std::span<uint8_t> packed, std::span<float> absmax);

// REQUIRES: the same sizes
void Nf4Dequantize(std::span<const uint8_t> packed,
                   std::span<const float> absmax, std::span<float> weights);
void Nf4DequantizeReference(std::span<const uint8_t> packed,
                            std::span<const float> absmax,
                            std::span<float> weights);

}  // namespace ft
