// SPDX-License-Identifier: Apache-2.0
//
// Frequencies of the rotary embedding, and the table of their cosines and
// sines. Base: inv_i = theta^(-2i/d), i in [0, d/2), d = head_dim; the kinds of
// RopeSpec change inv_i (linear: arXiv:2306.15595, yarn: arXiv:2309.00071,
// llama3: the Llama 3.1 release) or, dynamic, theta.

#pragma once

#include <cstdint>
#include <vector>

#include "formats/model_spec.h"

namespace ft {

// inv_i for a segment of `length` tokens (only kDynamic depends on it).
std::vector<double> RopeFrequencies(const RopeSpec& rope, int64_t head_dim,
                                    int64_t max_position, int64_t length);

// cos and sin, times attention_factor, for positions [0, length); row-major
// [length, head_dim / 2]. Grows when asked for more. Not thread-safe.
class RopeTable {
 public:
  RopeTable(const RopeSpec& rope, int64_t head_dim, int64_t max_position);

  // Makes rows for positions below `length`.
  void Extend(int64_t length);

  const float* cos() const { return cos_.data(); }
  const float* sin() const { return sin_.data(); }
  int64_t head_dim() const { return head_dim_; }

 private:
  const RopeSpec rope_;
  const int64_t head_dim_;
  const int64_t max_position_;
  int64_t length_ = 0;
  std::vector<float> cos_;
  std::vector<float> sin_;
};

}  // namespace ft
