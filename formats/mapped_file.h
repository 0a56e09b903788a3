// SPDX-License-Identifier: Apache-2.0
//
// A file that is opened, looked at with ordinary reads, and mapped once its
// header is trusted. Whoever cuts the file while it is mapped kills the reader:
// only for files that are written once and renamed into place.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file.h"

namespace ft {

class MappedFile {
 public:
  MappedFile() = default;
  // Opens a regular file; nothing is mapped yet.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }

  // Fills `bytes` from `offset`. REQUIRES: it lies inside size().
  absl::Status ReadAt(int64_t offset, std::span<char> bytes) const;

  // Maps the whole file read-only and closes the descriptor.
  absl::Status Map();

  // REQUIRES: mapped, or the file is empty.
  std::span<const std::byte> bytes() const;

  // Drops whole pages inside `part` from this process; they are read again
  // when touched.
  void Forget(std::span<const std::byte> part) const;

 private:
  std::string path_;
  UniqueFd file_;
  int64_t size_ = 0;
  const std::byte* mapping_ = nullptr;
};

}  // namespace ft
