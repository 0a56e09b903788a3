// SPDX-License-Identifier: Apache-2.0
//
// The two moments of AdamW for a part of a bucket: in fp32, or in 8 bits
// (arXiv:2110.02861). In 8 bits tensors below kLeast8BitElements keep fp32
// moments, and blocks of 256 begin with their tensor: no cut of a shard goes
// through one, so that a shard steps to the bits of the same part of the whole.
// No torch.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/adamw.h"
#include "sharding/partition.h"
#include "sharding/shard_state.h"

namespace ft {

enum class MomentFormat { kFp32, k8Bit };

// The kinds of state that a tensor of `numel` elements has in a checkpoint
// besides kMaster, and how many elements of each belong to elements [begin,
// end) of the tensor.
struct MomentKind {
  const char* kind;
  int64_t block = 1;  // Elements of the tensor that share one of the kind.
};
std::vector<MomentKind> MomentKinds(MomentFormat format, int64_t numel);

// Not thread-safe.
class Moments {
 public:
  // Zeros for elements [part.begin, part.end) of `bucket`. `partition` must
  // outlive it. REQUIRES: for k8Bit, fragments begin at multiples of
  // kDynamicBlock
  Moments(const Partition& partition, int64_t bucket, Interval part,
          MomentFormat format);

  // One step of elements `elements` of fragment `index`, which lie in the part.
  void Update(size_t index, Interval elements, const AdamWStep& step,
              std::span<float> parameters, std::span<const float> gradients);

  // Their state, by name. The spans live until the next Update.
  std::vector<StatePiece> Pieces(size_t index, Interval elements) const;
  // Takes it from a checkpoint. DATA_LOSS as SavedPieces::Fill.
  absl::Status Fill(size_t index, Interval elements, const SavedPieces& pieces);

  // All that there is, padding included, in an order that depends on the layout
  // alone.
  std::vector<std::span<std::byte>> Buffers();
  std::vector<std::span<const std::byte>> Buffers() const;
  int64_t bytes() const;

  // The moments themselves. REQUIRES: kFp32
  std::span<float> exp_avg() { return exp_avg_; }
  std::span<float> exp_avg_sq() { return exp_avg_sq_; }
  std::span<const float> exp_avg() const { return exp_avg_; }
  std::span<const float> exp_avg_sq() const { return exp_avg_sq_; }

 private:
  struct Place {
    bool is_8_bit = false;
    int64_t zero = 0;  // Where element 0 of the fragment would lie.
  };
  // The state of `elements` of a kind: bytes of `self`, and const as it is.
  template <typename Self>
  static auto BytesOf(Self& self, const MomentKind& kind, const Place& place,
                      Interval elements);
  template <typename Self>
  static auto BuffersOf(Self& self);

  const Partition& partition_;
  const MomentFormat format_;
  std::map<size_t, Place> places_;
  // fp32: of the whole part; in 8 bits of the small tensors, one after another.
  std::vector<float> exp_avg_, exp_avg_sq_;
  std::vector<uint8_t> exp_avg_q8_, exp_avg_sq_q8_;
  std::vector<float> exp_avg_absmax_, exp_avg_sq_absmax_;
};

}  // namespace ft
