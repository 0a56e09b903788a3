// SPDX-License-Identifier: Apache-2.0
//
// What stands before the bytes of every message between two ranks. Both ends
// know what must come next, so a header is compared, never believed: sizes are
// those of the receiver's own call. Little-endian, like every machine we run
// on. Only collective/ includes this file.

#pragma once

#include <bit>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "collective/sequence.h"

namespace ft::internal {

struct FrameHeader {
  uint32_t magic = 0;
  uint32_t op = 0;        // CollectiveOp
  uint64_t job = 0;       // The first bytes of the job id's SHA-256.
  uint64_t epoch = 0;     // Of the attempt.
  uint64_t sequence = 0;  // SequenceHash over all calls, this one included.
  uint64_t bytes = 0;     // What follows.
};
static_assert(sizeof(FrameHeader) == 40);
static_assert(std::endian::native == std::endian::little);

// Of an abort's reason; the rest is cut.
inline constexpr size_t kMaxAbortBytes = 1024;

uint64_t JobTag(absl::string_view job_id);

FrameHeader MakeFrame(CollectiveOp op, uint64_t job, uint64_t epoch,
                      uint64_t sequence, uint64_t bytes);

// PERMISSION_DENIED: `got` is of another attempt, or no header. INTERNAL: the
// peer made another call than we did.
absl::Status CheckFrame(const FrameHeader& got, const FrameHeader& expected);

}  // namespace ft::internal
