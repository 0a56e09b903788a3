// SPDX-License-Identifier: Apache-2.0

#include "coordinator/segment_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "common/digest.h"
#include "common/env.h"
#include "common/status.h"

namespace ft {
namespace {

constexpr size_t kHeader = 8;

void PutU32(uint32_t value, char* at) {
  for (int i = 0; i < 4; ++i) at[i] = static_cast<char>(value >> (8 * i));
}

uint32_t GetU32(const char* at) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    value |= static_cast<uint32_t>(static_cast<unsigned char>(at[i]))
             << (8 * i);
  }
  return value;
}

// Reads exactly `size` bytes; false at the end of the file.
absl::StatusOr<bool> ReadAt(int fd, int64_t offset, char* into, size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t got = ::pread(fd, into + done, size - done,
                                offset + static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read segment");
    if (got == 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

}  // namespace

absl::StatusOr<SegmentLog> SegmentLog::Open(const std::string& path) {
  UniqueFd fd(Files().Open(path.c_str(),
                           O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!fd.is_open()) return ErrnoStatus(errno, path);
  FT_ASSIGN_OR_RETURN(
      const int64_t whole,
      ReadSegment(path, 0, [](absl::string_view) { return true; }));
  if (Files().Truncate(fd.get(), whole) != 0) return ErrnoStatus(errno, path);
  return SegmentLog(std::move(fd), whole);
}

absl::Status SegmentLog::Append(absl::string_view record) {
  if (record.empty() || record.size() > kMaxRecordBytes) {
    return absl::InvalidArgumentError("segment record is empty or too large");
  }
  std::string framed(kHeader, '\0');
  PutU32(static_cast<uint32_t>(record.size()), framed.data());
  PutU32(Crc32c(record), framed.data() + 4);
  framed.append(record.data(), record.size());
  const absl::Status written = WriteAll(fd_.get(), framed);
  if (!written.ok()) {
    // What got in is torn; the next record must not follow it.
    if (Files().Truncate(fd_.get(), size_) != 0) {
      return ErrnoStatus(errno, "truncate segment");
    }
    return written;
  }
  size_ += static_cast<int64_t>(framed.size());
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ReadSegment(
    const std::string& path, int64_t offset,
    const std::function<bool(absl::string_view record)>& visit) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.is_open()) {
    if (errno == ENOENT) return offset;
    return ErrnoStatus(errno, path);
  }
  std::string record;
  while (true) {
    std::array<char, kHeader> header;
    FT_ASSIGN_OR_RETURN(const bool more,
                        ReadAt(fd.get(), offset, header.data(), header.size()));
    if (!more) return offset;
    const uint32_t size = GetU32(header.data());
    // No record is empty: zeros are a hole that a power loss left.
    if (size == 0 || size > SegmentLog::kMaxRecordBytes) return offset;
    record.resize(size);
    FT_ASSIGN_OR_RETURN(const bool whole,
                        ReadAt(fd.get(), offset + static_cast<int64_t>(kHeader),
                               record.data(), size));
    if (!whole || Crc32c(record) != GetU32(header.data() + 4)) return offset;
    if (!visit(record)) return offset;
    offset += static_cast<int64_t>(kHeader + size);
  }
}

}  // namespace ft
