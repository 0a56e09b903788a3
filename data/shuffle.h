// SPDX-License-Identifier: Apache-2.0
//
// The order of the examples of a pass: a permutation of [0, n) that is a
// function of (seed, pass), without a table. The order is part of a job's
// result, so the function never changes:
//
//   mix(z)     SplitMix64's output for the state z: z += 0x9E3779B97F4A7C15;
//              z = (z ^ z>>30) * 0xBF58476D1CE4E5B9;
//              z = (z ^ z>>27) * 0x94D049BB133111EB; z ^ z>>31
//   key[0]     mix(mix(mix(seed) ^ pass)), key[i + 1] = mix(key[i])
//   h          the least number >= 1 with 4^h >= n
//   encrypt    a Feistel network on 2h bits, halves (left, right) of h bits:
//              four times (left, right) = (right, left ^ mix(right ^ key[i])
//              mod 2^h)
//   order(i)   encrypt(i), encrypted again until it is below n
//
// The network is a bijection of [0, 4^h), and walking its cycles makes it one
// of [0, n); fewer than four steps are needed on average, because 4^h <= 4n.

#pragma once

#include <cstdint>

namespace ft {

class Permutation {
 public:
  // REQUIRES: size >= 1
  Permutation(int64_t size, uint64_t seed, int64_t pass);

  // The example at place `index` of the pass. REQUIRES: 0 <= index < size
  int64_t operator()(int64_t index) const;

 private:
  uint64_t Encrypt(uint64_t value) const;

  const uint64_t size_;
  int half_bits_;
  uint64_t keys_[4];
};

}  // namespace ft
