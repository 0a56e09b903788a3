// SPDX-License-Identifier: Apache-2.0
//
// AdamW over one flat buffer (arXiv:1711.05101): clip, decay, moments and
// update in one pass.
//
//   g = gradient * gradient_scale
//   m = beta1 m + (1 - beta1) g
//   v = beta2 v + (1 - beta2) g g
//   p = p (1 - lr decay) - lr / (1 - beta1^t) * m /
//       (sqrt(v) / sqrt(1 - beta2^t) + eps)
//
// Elementwise, so that a shard's update equals the same part of the whole's to
// the bit.

#pragma once

#include <cstdint>
#include <span>

namespace ft {

struct AdamWStep {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  // 1 for the first step.
  int64_t step = 1;
  // Gradients are multiplied by it first (the clip factor).
  double gradient_scale = 1;
};

// REQUIRES: the four spans have one size, step.step >= 1
void AdamWUpdate(const AdamWStep& step, std::span<float> parameters,
                 std::span<const float> gradients, std::span<float> exp_avg,
                 std::span<float> exp_avg_sq);
void AdamWUpdateReference(const AdamWStep& step, std::span<float> parameters,
                          std::span<const float> gradients,
                          std::span<float> exp_avg,
                          std::span<float> exp_avg_sq);

}  // namespace ft
