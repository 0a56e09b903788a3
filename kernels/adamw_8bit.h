// SPDX-License-Identifier: Apache-2.0
//
// AdamW whose moments are held in 8 bits (arXiv:2110.02861): dequantised,
// stepped as adamw.h has it, quantised again, block after block of 256. The
// first moment by the signed dynamic map, the second by the unsigned one; a
// second moment above zero never has the code of zero, for then a small
// gradient after a larger one would be divided by next to nothing (seen: steps
// of 800 learning rates).
//
// A shard that is cut on blocks steps to the bits of the same part of the
// whole.

#pragma once

#include <cstdint>
#include <span>

#include "kernels/adamw.h"

namespace ft {

// Smaller tensors keep fp32 moments: they save nothing and lose precision.
inline constexpr int64_t kLeast8BitElements = 4096;

// The moments of a flat buffer: codes, one an element, and the scales of
// blocks of kDynamicBlock. All zero at first.
struct Moments8Bit {
  std::span<uint8_t> exp_avg;
  std::span<float> exp_avg_absmax;
  std::span<uint8_t> exp_avg_sq;
  std::span<float> exp_avg_sq_absmax;
};

// REQUIRES: gradients and codes as many as parameters, step.step >= 1
void AdamW8BitUpdate(const AdamWStep& step, std::span<float> parameters,
                     std::span<const float> gradients,
                     const Moments8Bit& moments);

}  // namespace ft
