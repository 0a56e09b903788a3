// SPDX-License-Identifier: Apache-2.0

#include "formats/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "common/check.h"
#include "common/status.h"

namespace ft {

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  MappedFile file;
  file.path_ = path;
  // Non-blocking, so that a named pipe in place of a file cannot hang us.
  file.file_ = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.file_.is_open()) {
    return ErrnoStatus(errno, absl::StrCat("open ", path));
  }
  struct stat info;
  if (fstat(file.file_.get(), &info) != 0) {
    return ErrnoStatus(errno, absl::StrCat("stat ", path));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a file"));
  }
  file.size_ = info.st_size;
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::move(other.file_)),
      size_(std::exchange(other.size_, 0)),
      mapping_(std::exchange(other.mapping_, nullptr)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  return *this;
}

MappedFile::~MappedFile() {
  if (mapping_ != nullptr) munmap(const_cast<std::byte*>(mapping_), size_);
}

absl::Status MappedFile::ReadAt(int64_t offset, std::span<char> bytes) const {
  FT_CHECK(file_.is_open());
  FT_CHECK(offset >= 0 && offset + static_cast<int64_t>(bytes.size()) <= size_);
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = pread(file_.get(), bytes.data() + done,
                              bytes.size() - done, offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", path_));
    if (got == 0) {
      return absl::DataLossError(
          absl::StrCat(path_, ": became shorter while it was read"));
    }
    done += got;
  }
  return absl::OkStatus();
}

absl::Status MappedFile::Map() {
  FT_CHECK(file_.is_open() && mapping_ == nullptr);
  if (size_ > 0) {
    void* mapped = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file_.get(), 0);
    if (mapped == MAP_FAILED) {
      return ErrnoStatus(errno, absl::StrCat("map ", path_));
    }
    mapping_ = static_cast<const std::byte*>(mapped);
  }
  file_.Close();
  return absl::OkStatus();
}

std::span<const std::byte> MappedFile::bytes() const {
  FT_CHECK(mapping_ != nullptr || size_ == 0);
  return {mapping_, static_cast<size_t>(size_)};
}

void MappedFile::Forget(std::span<const std::byte> part) const {
  const uintptr_t page = sysconf(_SC_PAGESIZE);
  const uintptr_t begin =
      (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const uintptr_t end =
      reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) {
    // Only a hint: the pages are clean and come back when touched.
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
}

}  // namespace ft
