// SPDX-License-Identifier: Apache-2.0
//
// The fingerprint of a rank's calls.

#pragma once

#include <cstdint>

namespace ft {

enum class CollectiveOp : uint32_t {
  kAllGather = 1,
  kAllToAll,
  kBroadcast,
  kBarrier,
  kAbort,
};

class SequenceHash {
 public:
  void Add(CollectiveOp op, uint64_t size) {
    for (const uint64_t word : {static_cast<uint64_t>(op), size}) {
      hash_ = (hash_ ^ word) * 0x100000001B3;  // FNV-1a over words.
      hash_ ^= hash_ >> 29;
    }
  }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xCBF29CE484222325;
};

}  // namespace ft
