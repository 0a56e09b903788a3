// SPDX-License-Identifier: Apache-2.0
//
// Ranks of one machine over memory that they share: a slot a rank, written by
// its rank alone and read by all others.
//
//   page 0          the abort: who gave up, and why
//   blocks          one a rank: its proof, how many pieces it has posted, and
//                   the header of the last two (frame.h)
//   slots           one a rank, two halves: even and odd pieces
//
// A rank copies a piece of its data into a half of its slot, counts it as
// posted, and reads the same piece of every other rank once that is posted.
// Whoever posts piece g has read all pieces g-1, so half g-1 is free again when
// everybody has posted g: one wait a piece, and no lock. Waiting is a futex.
//
// A rank that dies is seen by its file lock on the memory, which the kernel
// drops; one that only hangs, by the timeout.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "collective/collective.h"

namespace ft {

// More ranks do not share one machine's memory.
inline constexpr int kMaxShmRanks = 256;

struct ShmOptions {
  int rank = 0;
  int size = 1;
  std::string job_id;
  uint64_t epoch = 0;
  std::string secret;  // Of the attempt, the same for all; not for a size of 1.
  absl::Duration connect_timeout = absl::Seconds(60);
  // When a rank we wait for posts nothing for so long, it hangs. Must be longer
  // than the longest time between two calls of a rank.
  absl::Duration idle_timeout = absl::Seconds(300);
};

// Meets the other ranks in the memory `fd` (common/shared_memory.h; made for
// this attempt, used by no other). Keeps a descriptor of its own.
// INVALID_ARGUMENT: the memory is too small for so many ranks, or is not
// sealed. DEADLINE_EXCEEDED: a rank did not come in time. PERMISSION_DENIED: a
// rank does not know the secret, or is of another job or epoch. ALREADY_EXISTS:
// this rank is there already.
//
// Later, from every call: ABORTED, a rank died, gave up or was silent for
// idle_timeout; INTERNAL, it made other calls than this rank.
absl::StatusOr<std::unique_ptr<Collective>> ConnectShm(
    const ShmOptions& options, int fd);

}  // namespace ft
