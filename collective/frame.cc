// SPDX-License-Identifier: Apache-2.0

#include "collective/frame.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/digest.h"

namespace ft::internal {
namespace {

constexpr uint32_t kMagic = 0x31437466;  // "ftC1"

const char* NameOf(uint32_t op) {
  switch (static_cast<CollectiveOp>(op)) {
    case CollectiveOp::kAllGather:
      return "all-gather";
    case CollectiveOp::kAllToAll:
      return "all-to-all";
    case CollectiveOp::kBroadcast:
      return "broadcast";
    case CollectiveOp::kBarrier:
      return "barrier";
    case CollectiveOp::kAbort:
      return "abort";
  }
  return "unknown operation";
}

}  // namespace

uint64_t JobTag(absl::string_view job_id) {
  Sha256 sha;
  sha.Update(job_id);
  uint64_t tag = 0;
  std::memcpy(&tag, sha.Finish().data(), sizeof(tag));
  return tag;
}

FrameHeader MakeFrame(CollectiveOp op, uint64_t job, uint64_t epoch,
                      uint64_t sequence, uint64_t bytes) {
  return {.magic = kMagic,
          .op = static_cast<uint32_t>(op),
          .job = job,
          .epoch = epoch,
          .sequence = sequence,
          .bytes = bytes};
}

absl::Status CheckFrame(const FrameHeader& got, const FrameHeader& expected) {
  if (got.magic != kMagic) {
    return absl::PermissionDeniedError("it sent what is no message of ours");
  }
  if (got.job != expected.job) {
    return absl::PermissionDeniedError("a message of another job");
  }
  if (got.epoch != expected.epoch) {
    return absl::PermissionDeniedError(absl::StrCat(
        "a message of epoch ", got.epoch, ", not ", expected.epoch));
  }
  if (got.op != expected.op || got.bytes != expected.bytes ||
      got.sequence != expected.sequence) {
    return absl::InternalError(absl::StrCat(
        "it made other collective calls: ", NameOf(got.op), " of ", got.bytes,
        " bytes, here ", NameOf(expected.op), " of ", expected.bytes));
  }
  return absl::OkStatus();
}

}  // namespace ft::internal
