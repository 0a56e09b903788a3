// SPDX-License-Identifier: Apache-2.0
//
// Philox4x32-10 (Salmon et al., SC 2011): random numbers as a function of what
// they are for. There is no state to save, so a resumed run and any number of
// ranks draw the same ones.

#pragma once

#include <array>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace ft {

// Four random words for `counter` under `key`.
inline std::array<uint32_t, 4> Philox(uint64_t key, uint64_t counter_low,
                                      uint64_t counter_high) {
  std::array<uint32_t, 4> c = {static_cast<uint32_t>(counter_low),
                               static_cast<uint32_t>(counter_low >> 32),
                               static_cast<uint32_t>(counter_high),
                               static_cast<uint32_t>(counter_high >> 32)};
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * c[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(product1 >> 32) ^ c[1] ^ k0,
         static_cast<uint32_t>(product1),
         static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ k1,
         static_cast<uint32_t>(product0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

// In [0, 1), 24 bits.
inline float UniformOf(uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

// SplitMix64's finaliser over a running hash: mixes `value` into `hash`.
inline uint64_t MixHash(uint64_t hash, uint64_t value) {
  uint64_t z = hash + 0x9E3779B97F4A7C15 + value;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

inline uint64_t HashOf(absl::string_view text) {
  uint64_t hash = text.size();
  for (const char c : text) {
    hash = MixHash(hash, static_cast<unsigned char>(c));
  }
  return hash;
}

}  // namespace ft
