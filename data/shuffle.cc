// SPDX-License-Identifier: Apache-2.0

#include "data/shuffle.h"

#include "common/check.h"

namespace ft {
namespace {

// SplitMix64's finaliser.
uint64_t Mix(uint64_t z) {
  z += 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

}  // namespace

Permutation::Permutation(int64_t size, uint64_t seed, int64_t pass)
    : size_(static_cast<uint64_t>(size)) {
  FT_CHECK(size >= 1);
  half_bits_ = 1;
  while ((uint64_t{1} << (2 * half_bits_)) < size_) ++half_bits_;
  uint64_t key = Mix(seed);
  key = Mix(key ^ static_cast<uint64_t>(pass));
  for (uint64_t& round_key : keys_) round_key = key = Mix(key);
}

uint64_t Permutation::Encrypt(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_;
  uint64_t right = value & mask;
  for (const uint64_t key : keys_) {
    const uint64_t next = left ^ (Mix(right ^ key) & mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

int64_t Permutation::operator()(int64_t index) const {
  FT_CHECK(index >= 0 && static_cast<uint64_t>(index) < size_);
  uint64_t value = static_cast<uint64_t>(index);
  do {
    value = Encrypt(value);
  } while (value >= size_);
  return static_cast<int64_t>(value);
}

}  // namespace ft
