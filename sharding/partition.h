// SPDX-License-Identifier: Apache-2.0
//
// Who owns which elements: integers only, no torch. Trainable tensors are laid
// one after another into flat buffers; a buffer is cut into as many equal
// shards as there are ranks; a cut may go through a tensor, and nothing outside
// this table knows it.
//
//   shard r of a bucket = [r S, (r + 1) S),  S = ceil(total / (N A)) A,
//   A = 1,024 (the tile of the gradient norm)
//
// Units (blocks) begin at multiples of A, so that neither the bucket size nor N
// moves an element to another tile: norms are equal to the bit.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ft {

inline constexpr int64_t kShardAlign = 1024;
inline constexpr int64_t kFragmentAlign = 16;  // Elements: 64 bytes of fp32.
// Units are merged into a bucket up to this many elements.
inline constexpr int64_t kBucketElements = 25 << 20;

// A tensor to be placed.
struct PartitionInput {
  std::string name;
  std::vector<int64_t> shape;
  int64_t unit = 0;
  bool decays = true;
};

// Where a tensor lies.
struct Fragment {
  std::string name;
  std::vector<int64_t> shape;
  int64_t unit = 0;
  bool decays = true;
  int64_t bucket = 0;
  int64_t start = 0;  // Element in the bucket.
  int64_t numel = 0;
};

struct Bucket {
  int64_t used = 0;        // Elements before padding.
  int64_t shard_size = 0;  // S.
};

// Elements [begin, end).
struct Interval {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end > begin ? end - begin : 0; }
};

class Partition {
 public:
  // A pure function of its arguments: every rank makes the same one. Inputs in
  // forward order; those of a unit stand together. REQUIRES: ranks >= 1
  // Tensors begin at multiples of `fragment_align`, a divisor of kShardAlign.
  Partition(const std::vector<PartitionInput>& inputs, int ranks,
            int64_t bucket_elements = kBucketElements,
            int64_t fragment_align = kFragmentAlign);

  int ranks() const { return ranks_; }
  const std::vector<Fragment>& fragments() const { return fragments_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }

  // Elements of a bucket with its padding: ranks * S.
  int64_t padded_size(int64_t bucket) const {
    return ranks_ * buckets_[bucket].shard_size;
  }

  // S over all buckets: what a rank owns.
  int64_t shard_elements() const;

  // The part of `fragment`, counted from its own first element, that lies in
  // rank's shard; empty if none does.
  Interval OwnedPart(const Fragment& fragment, int rank) const;

  // SHA-256 of the table: compared over ranks, and kept in checkpoints.
  std::string Digest() const;

 private:
  const int ranks_;
  std::vector<Fragment> fragments_;
  std::vector<Bucket> buckets_;
};

}  // namespace ft
