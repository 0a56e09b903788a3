// SPDX-License-Identifier: Apache-2.0
//
// The last two snapshots of one rank's state, in one file on a memory file
// system. It outlives the rank that writes it and the daemon that owns it, not
// the machine: what must outlive that is a checkpoint.
//
//   page 0, page 1   the seals of slots 0 and 1
//   slots            two payloads of equal size
//
// A slot is overwritten in this order: its seal is broken, the payload is
// written, the digest of the payload is made, the seal is written. A writer
// that dies in between leaves no seal, and the other slot whole. One process
// holds the ring at a time, by a file lock that falls with it.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/file.h"

namespace ft {

// What is in a slot. Little-endian on disk, with a CRC over it.
struct SnapshotSeal {
  uint64_t epoch = 0;
  int64_t step = 0;
  int32_t rank = 0;
  int32_t ranks = 0;
  int64_t bytes = 0;
  std::string sha256;  // Of the payload.
};

// Not thread-safe, but that between Begin and Seal the payload and then Seal
// may be left to another thread.
class SnapshotRing {
 public:
  // What a ring for payloads of `payload_bytes` takes on the file system.
  static int64_t FileBytes(int64_t payload_bytes);

  // Opens or makes the ring and locks it. A ring for payloads of another size
  // is emptied. All its bytes are allocated: a later write cannot fail.
  // RESOURCE_EXHAUSTED: there is no room. UNAVAILABLE: another process still
  // holds it after `lock_timeout`.
  static absl::StatusOr<std::unique_ptr<SnapshotRing>> Open(
      const std::string& path, int64_t payload_bytes,
      absl::Duration lock_timeout);
  ~SnapshotRing();

  // The newest first.
  std::vector<SnapshotSeal> Seals() const;

  // The payload of a step. NOT_FOUND: it is not here. DATA_LOSS: it does not
  // have the digest of its seal.
  absl::StatusOr<std::span<const std::byte>> Read(int64_t step) const;

  // Breaks every seal but that of `step`.
  void KeepOnly(int64_t step);

  // The payload of a new snapshot, in the slot that does not hold `kept_step`;
  // that slot's old seal is broken.
  std::span<std::byte> Begin(int64_t kept_step);

  // Seals what was written since Begin: hashes the whole payload.
  // seal.bytes and seal.sha256 are set here.
  SnapshotSeal Seal(SnapshotSeal seal);

 private:
  SnapshotRing(UniqueFd fd, std::string path, std::byte* base, size_t bytes)
      : fd_(std::move(fd)),
        path_(std::move(path)),
        base_(base),
        bytes_(bytes) {}
  std::span<std::byte> Slot(int slot) const;

  const UniqueFd fd_;
  const std::string path_;
  std::byte* const base_;
  const size_t bytes_;
  int open_slot_ = -1;  // Between Begin and Seal.
};

// The seals of a ring that a rank may be writing to.
absl::StatusOr<std::vector<SnapshotSeal>> ReadSnapshotSeals(
    const std::string& path);

// Breaks the seals of a ring whose payloads do not have their digests.
// UNAVAILABLE: a process still holds it after `lock_timeout`. Returns how many
// were broken.
absl::StatusOr<int> VerifySnapshots(const std::string& path,
                                    absl::Duration lock_timeout);

}  // namespace ft
