// SPDX-License-Identifier: Apache-2.0
//
// How the ranks of a gang exchange bytes: threads of one process (tests), TCP
// between workers; shared memory and NCCL behind the same interface. No torch.
//
// Calls are synchronous: on CPUs there is nothing to overlap them with that
// would not want the same cores. All ranks must make the same calls with the
// same sizes in the same order. A dead peer is an error on every rank within
// the timeout, never a hang; after an error every later call fails, and the
// rank must end.
//
// The canonical reduction is an all-to-all of pieces and a local sum in the
// fixed order of tree.h: the same bits over every transport.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace ft {

// The order in which a reduction adds.
enum class Order {
  kCanonical,  // tree.h: equal bits over every transport and split.
  // The transport's own. On CPUs the same: an all-to-all sends no more bytes
  // than a ring, and the sum costs less than the bytes.
  kFast,
};

// Bytes that this rank sent, by operation.
struct CollectiveBytes {
  int64_t all_gather = 0;
  int64_t all_to_all = 0;
  int64_t broadcast = 0;
  int64_t barrier = 0;

  int64_t total() const {
    return all_gather + all_to_all + broadcast + barrier;
  }
};

// Not thread-safe, but for Abort.
class Collective {
 public:
  virtual ~Collective() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // out has size() blocks of in.size() bytes, by rank. `in` may be block rank()
  // of `out` itself. REQUIRES: out.size() == size() * in.size()
  virtual absl::Status AllGather(std::span<std::byte> out,
                                 std::span<const std::byte> in) = 0;

  // Block r of `in` goes to rank r; block r of `out` comes from rank r.
  // REQUIRES: in.size() == out.size(), a multiple of size()
  virtual absl::Status AllToAll(std::span<std::byte> out,
                                std::span<const std::byte> in) = 0;

  // Every rank gets root's bytes.
  virtual absl::Status Broadcast(std::span<std::byte> data, int root) = 0;

  // Returns when every rank has called it.
  virtual absl::Status Barrier() = 0;

  // Ends every pending and later call: here with `why`, on the other ranks with
  // ABORTED. The first error of a rank stays. Thread-safe. REQUIRES: !why.ok()
  virtual void Abort(const absl::Status& why) = 0;

  // Over (operation, size) of every call so far: ranks that issue different
  // calls differ in it.
  virtual uint64_t sequence_hash() const = 0;

  virtual const CollectiveBytes& bytes_sent() const = 0;

  // The sum over ranks of block rank() of `in`. `out` may lie in `in`.
  // REQUIRES: in.size() == size() * out.size()
  absl::Status ReduceScatter(std::span<float> out, std::span<const float> in,
                             Order order = Order::kCanonical);

  // Sums in rank order by tree.h, fp64: counts, losses, norms.
  absl::Status AllReduce(std::span<double> values);

 private:
  std::vector<float> pieces_;  // Of a reduction; kept for the next.
};

}  // namespace ft
