// SPDX-License-Identifier: Apache-2.0
//
// The order of the examples of a pass: a permutation of [0, n) that is a
// function of (seed, pass), without a table. A four-round Feistel network over
// the least even number of bits that holds n, its round function MixHash-like,
// walked along its cycle until the value is below n. The order is part of the
// result of a job: it never changes.

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
