// SPDX-License-Identifier: Apache-2.0
//
// RMSNorm (arXiv:1910.07467) over rows of D values:
//
//   r = 1 / sqrt(mean(x^2) + eps),  y = x r w
//   dx = r w dy - x r^3 / D sum(w dy x),  dw = sum over rows of dy x r
//
// The mean is summed in fp32 lanes and added up in fp64.

#pragma once

#include <cstdint>
#include <span>

namespace ft {

// x, y: rows * dim; weight: dim; rstd: rows.
void RmsNormForward(std::span<const float> x, std::span<const float> weight,
                    float eps, std::span<float> y, std::span<float> rstd);
void RmsNormForwardReference(std::span<const float> x,
                             std::span<const float> weight, float eps,
                             std::span<float> y, std::span<float> rstd);

// Writes dx. dx may be dy.
void RmsNormBackward(std::span<const float> dy, std::span<const float> x,
                     std::span<const float> weight, std::span<const float> rstd,
                     std::span<float> dx);
void RmsNormBackwardReference(std::span<const float> dy,
                              std::span<const float> x,
                              std::span<const float> weight,
                              std::span<const float> rstd, std::span<float> dx);

}  // namespace ft
