// SPDX-License-Identifier: Apache-2.0
//
// Rotary positions (arXiv:2104.09864), half style: with d = rotary_dim,
// dimensions i and i + d/2 of a head turn by the angle of frequency i at the
// token's position; the dimensions behind d stay. The backward pass is the
// rotation by the negative angle.

#pragma once

#include <cstdint>
#include <span>

namespace ft {

enum class RopeDirection { kForward, kBackward };

// Turns every head of every token of `x` in place.
//   x: tokens * heads * head_dim, with `row_stride` values from one token to
//      the next (at least heads * head_dim)
//   cos, sin: a table of positions * rotary_dim / 2
//   positions: tokens, each below the table's size
void RopeInPlace(float* x, int64_t tokens, int64_t heads, int64_t head_dim,
                 int64_t rotary_dim, int64_t row_stride,
                 std::span<const int32_t> positions, const float* cos,
                 const float* sin, RopeDirection direction);
void RopeInPlaceReference(float* x, int64_t tokens, int64_t heads,
                          int64_t head_dim, int64_t rotary_dim,
                          int64_t row_stride,
                          std::span<const int32_t> positions, const float* cos,
                          const float* sin, RopeDirection direction);

}  // namespace ft
