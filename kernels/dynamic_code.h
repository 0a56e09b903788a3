// SPDX-License-Identifier: Apache-2.0
//
// 8-bit codes by the dynamic map (arXiv:2110.02861): 256 values, dense near
// zero, in blocks of 256 that share one fp32 scale. For the moments of AdamW,
// and for the scales of NF4 (double quantisation, arXiv:2305.14314).
//
//   absmax_b = max |x|                              over the block
//   code = the map's entry nearest to x / absmax_b  of two the lower one
//   x' = map[code] * absmax_b                       fp32
//
// A block of zeros has code 0.

#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace ft {

inline constexpr int64_t kDynamicBlock = 256;

constexpr int64_t DynamicBlocks(int64_t values) {
  return (values + kDynamicBlock - 1) / kDynamicBlock;
}

// What the codes stand for. Immutable, therefore thread-safe.
class DynamicCode {
 public:
  using Map = std::array<float, 256>;

  // With k = 2^i, or 2^(i+1) without signs:
  //   (0.1 + 0.9 (2j + 1) / (2k)) * 10^(i - 6)    i in 0..6, j in 0..k-1
  // mirrored with signs, and 0 and 1. Exact rationals, rounded once to fp32.
  // Other programs' maps differ by up to 6e-8.
  static const DynamicCode& Signed();
  static const DynamicCode& Unsigned();

  // Of a map that stands in a file. REQUIRES: it ascends
  explicit DynamicCode(const Map& map);

  const Map& map() const { return map_; }

  // REQUIRES: values are finite; as many codes, DynamicBlocks of absmax
  void Quantize(std::span<const float> values, std::span<uint8_t> codes,
                std::span<float> absmax) const;
  // REQUIRES: the same sizes
  void Dequantize(std::span<const uint8_t> codes, std::span<const float> absmax,
                  std::span<float> values) const;

  // The scales of NF4: their fp32 mean is returned, and what each is above it
  // is quantised.
  float QuantizeScales(std::span<const float> scales, std::span<uint8_t> codes,
                       std::span<float> absmax) const;
  // map[code] * absmax + offset, in fp32.
  void DequantizeScales(std::span<const uint8_t> codes,
                        std::span<const float> absmax, float offset,
                        std::span<float> scales) const;

 private:
  Map map_;
  std::array<double, 255> midpoints_;  // Between an entry and the next.
};

}  // namespace ft
