// SPDX-License-Identifier: Apache-2.0
//
// An append-only file of records: length (u32, little endian), CRC-32C (u32),
// bytes. A record that a crash cut off is dropped at the next opening. Records
// outlive the process; they are not synced, so a power loss may take the last
// seconds of metric points and log lines.

#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/file.h"

namespace ft {

// Not thread-safe.
class SegmentLog {
 public:
  static constexpr size_t kMaxRecordBytes = 8 << 20;

  // Opens or makes `path`. A torn end is cut off.
  static absl::StatusOr<SegmentLog> Open(const std::string& path);

  // RESOURCE_EXHAUSTED: no space; nothing was appended.
  absl::Status Append(absl::string_view record);

  // Bytes so far: where the next record begins.
  int64_t size() const { return size_; }

 private:
  SegmentLog(UniqueFd fd, int64_t size) : fd_(std::move(fd)), size_(size) {}

  UniqueFd fd_;
  int64_t size_;
};

// Reads records from `offset` on, until `visit` returns false or the end.
// Returns where to go on. A missing file is empty.
absl::StatusOr<int64_t> ReadSegment(
    const std::string& path, int64_t offset,
    const std::function<bool(absl::string_view record)>& visit);

}  // namespace ft
