// SPDX-License-Identifier: Apache-2.0
//
// Cross-entropy over a chunk of logits, its gradient in place. With m = max z
// and S = sum exp(z - m):
//
//   nll = m + ln S - z_label,  dz = scale (exp(z - m) / S - [label])
//
// fp32 statistics, their sums in fp64; no second buffer of logits exists.

#pragma once

#include <cstdint>
#include <span>

namespace ft {

// logits: rows * vocabulary, overwritten by the gradient; labels: rows, each in
// [0, vocabulary); nll: rows.
void CrossEntropyInPlace(std::span<float> logits, int64_t vocabulary,
                         std::span<const int64_t> labels, float scale,
                         std::span<double> nll);
void CrossEntropyInPlaceReference(std::span<float> logits, int64_t vocabulary,
                                  std::span<const int64_t> labels, float scale,
                                  std::span<double> nll);

}  // namespace ft
