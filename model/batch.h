// SPDX-License-Identifier: Apache-2.0
//
// What a forward pass reads: examples one after another on one token axis,
// without padding. Legend of all of model/: T packed tokens, D hidden size,
// H heads, K head dim, V vocabulary, R lora_rank, M supervised rows.

#pragma once

#include <cstdint>
#include <vector>

namespace ft {

struct PackedBatch {
  std::vector<int64_t> ids;        // T
  std::vector<int32_t> positions;  // T; begin at 0 in each segment.
  // Segment s is [cu_seqlens[s], cu_seqlens[s + 1]); first 0, last T.
  std::vector<int32_t> cu_seqlens;

  int64_t num_tokens() const { return static_cast<int64_t>(ids.size()); }

  // A batch whose segments have these tokens.
  static PackedBatch Of(const std::vector<std::vector<int64_t>>& segments) {
    PackedBatch batch;
    batch.cu_seqlens.push_back(0);
    for (const std::vector<int64_t>& segment : segments) {
      for (size_t i = 0; i < segment.size(); ++i) {
        batch.ids.push_back(segment[i]);
        batch.positions.push_back(static_cast<int32_t>(i));
      }
      batch.cu_seqlens.push_back(static_cast<int32_t>(batch.ids.size()));
    }
    return batch;
  }
};

// Names the random numbers of one forward pass: dropout masks are a function of
// it, of the module and of the element (kernels/philox.h).
struct NoiseKey {
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t round = 0;
  int64_t lane = 0;
};

}  // namespace ft
