// SPDX-License-Identifier: Apache-2.0
//
// The canonical order of a sum: the aligned pairwise tree. For parts a .. b-1
//
//   S(a, a+1) = x_a,  S(a, b) = S(a, m) + S(m, b),
//   m = a + the largest power of two below b - a
//
// An aligned block of 2^k parts is a subtree, so a rank that adds up its own
// 2^k lanes first does not change a bit (sharding/lane_carry.h).

#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ft {

// out = the tree over `parts`, each of out.size() elements; fp32 or fp64 adds.
// out may be parts[0]. REQUIRES: !parts.empty()
void TreeSum(std::span<const float* const> parts, std::span<float> out);
void TreeSum(std::span<const double* const> parts, std::span<double> out);

}  // namespace ft
