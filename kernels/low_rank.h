// SPDX-License-Identifier: Apache-2.0
//
// LoRA's projection to the low rank (arXiv:2106.09685):
//
//   out_TR = scale x_TD p_DR
//
// MKL on AVX2 takes 1.5 to 1.9 times as long at rank 8, 1.3 to 1.6 at 16;
// LoRA's other products it runs well. Each sum is in order, in fp32. Bound: one
// load a multiply-add.

#pragma once

#include <cstdint>
#include <span>

namespace ft {

// All arrays are row by row without gaps. Fast where rank is a multiple of 8.
void LowRankDown(std::span<const float> x_TD, std::span<const float> p_DR,
                 int64_t rank, float scale, std::span<float> out_TR);
void LowRankDownReference(std::span<const float> x_TD,
                          std::span<const float> p_DR, int64_t rank,
                          float scale, std::span<float> out_TR);

}  // namespace ft
