// SPDX-License-Identifier: Apache-2.0

#include "tests/testing/fault_env.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/file.h"

namespace ft::testing {
namespace {

using Op = DiskRecord::Op;
using Kind = DiskRecord::Op::Kind;

std::pair<uint64_t, uint64_t> IdOf(const struct stat& info) {
  return {info.st_dev, info.st_ino};
}

}  // namespace

FaultEnv::FaultEnv(std::string root) : root_(std::move(root) + "/") {
  ReplaceFiles(this);
  InstallFaultVfs(*this);
}

FaultEnv::~FaultEnv() {
  UninstallFaultVfs();
  ReplaceFiles(nullptr);
}

void FaultEnv::FailCall(int64_t k, int error) {
  absl::MutexLock lock(&mutex_);
  fail_at_ = calls_ + k;
  fail_with_ = error;
}

void FaultEnv::FailSync(int64_t k) {
  absl::MutexLock lock(&mutex_);
  fail_sync_at_ = syncs_ + k;
  fail_with_ = EIO;
}

bool FaultEnv::has_failed() const {
  absl::MutexLock lock(&mutex_);
  return has_failed_;
}

void FaultEnv::SetFull(bool is_full) {
  absl::MutexLock lock(&mutex_);
  is_full_ = is_full;
}

void FaultEnv::SetRoom(int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  room_ = bytes;
}

int64_t FaultEnv::room() const {
  absl::MutexLock lock(&mutex_);
  return room_;
}

void FaultEnv::Die() {
  absl::MutexLock lock(&mutex_);
  is_dead_ = true;
}

bool FaultEnv::is_dead() const {
  absl::MutexLock lock(&mutex_);
  return is_dead_;
}

void FaultEnv::Mark(const std::string& what) {
  absl::MutexLock lock(&mutex_);
  if (!is_dead_) record_.Add({.kind = Kind::kMark, .path = what});
}

int64_t FaultEnv::calls() const {
  absl::MutexLock lock(&mutex_);
  return calls_;
}

DiskRecord FaultEnv::TakeRecord() {
  absl::MutexLock lock(&mutex_);
  return std::move(record_);
}

bool FaultEnv::IsBelow(const std::string& path, std::string* relative) const {
  if (!absl::StartsWith(path, root_)) return false;
  *relative = path.substr(root_.size());
  while (absl::EndsWith(*relative, "/")) relative->pop_back();
  return true;
}

std::string FaultEnv::failed_path() const {
  absl::MutexLock lock(&mutex_);
  return failed_path_;
}

int FaultEnv::Before(Call call, const std::string& path) {
  absl::MutexLock lock(&mutex_);
  return BeforeLocked(call, path);
}

int FaultEnv::BeforeLocked(Call call, const std::string& path) {
  if (is_dead_) return EIO;
  ++calls_;
  if (call == Call::kSync) ++syncs_;
  if (calls_ == fail_at_ || (call == Call::kSync && syncs_ == fail_sync_at_)) {
    has_failed_ = true;
    failed_path_ = path;
    return fail_with_;
  }
  return call == Call::kGrow && (is_full_ || room_ == 0) ? ENOSPC : 0;
}

size_t FaultEnv::TakeRoom(size_t size, int& error) {
  // A write that fails leaves a part.
  const size_t wanted = error == 0 ? size : (is_dead_ ? 0 : size / 2);
  const int64_t part = std::min<int64_t>(room_, static_cast<int64_t>(wanted));
  if (error == 0 && std::cmp_less(part, wanted)) error = ENOSPC;
  room_ -= part;
  return static_cast<size_t>(part);
}

int FaultEnv::FileOf(int fd) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return -1;
  const auto found = files_.find(IdOf(info));
  return found == files_.end() ? -1 : found->second;
}

int FaultEnv::FileAt(const std::string& path, bool is_new) {
  absl::MutexLock lock(&mutex_);
  return FileAtLocked(path, is_new);
}

void FaultEnv::Forget(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  ForgetLocked(path);
}

void FaultEnv::ForgetLocked(const std::string& path) {
  struct stat info{};
  // The number of a file that is gone may come again, here or elsewhere.
  if (::lstat(path.c_str(), &info) == 0 && info.st_nlink == 1) {
    files_.erase(IdOf(info));
    if (S_ISREG(info.st_mode)) room_ += info.st_size;
  }
}

int FaultEnv::FileAtLocked(const std::string& path, bool is_new) {
  struct stat info{};
  FT_CHECK(::stat(path.c_str(), &info) == 0);
  // The number of a file that is gone may come again.
  if (is_new) files_.erase(IdOf(info));
  const auto found = files_.find(IdOf(info));
  if (found != files_.end()) return found->second;
  const int file = ++last_file_;
  files_[IdOf(info)] = file;
  std::string relative;
  FT_CHECK(IsBelow(path, &relative));
  record_.Add({.kind = Kind::kCreate, .file = file, .path = relative});
  return file;
}

void FaultEnv::Note(Op op) {
  absl::MutexLock lock(&mutex_);
  if (!is_dead_) record_.Add(std::move(op));
}

int FaultEnv::Open(const char* path, int flags, mode_t mode) {
  std::string relative;
  if (!IsBelow(path, &relative) || (flags & O_CREAT) == 0) {
    return FileEnv::Open(path, flags, mode);
  }
  absl::MutexLock lock(&mutex_);
  const bool is_new = !Exists(path);
  if (const int error = BeforeLocked(is_new ? Call::kGrow : Call::kOther);
      error != 0) {
    errno = error;
    return -1;
  }
  const int fd = FileEnv::Open(path, flags, mode);
  if (fd < 0) return fd;
  FileAtLocked(path, is_new);
  return fd;
}

ssize_t FaultEnv::Write(int fd, const void* bytes, size_t size) {
  absl::MutexLock lock(&mutex_);
  const int file = FileOf(fd);
  if (file < 0) return FileEnv::Write(fd, bytes, size);
  int error = BeforeLocked(Call::kGrow);
  const size_t part = TakeRoom(size, error);
  const ssize_t put = part == 0 ? 0 : FileEnv::Write(fd, bytes, part);
  if (put > 0) {
    record_.Add({.kind = Kind::kWrite,
                 .file = file,
                 .offset = ::lseek(fd, 0, SEEK_CUR) - put,
                 .bytes = std::string(static_cast<const char*>(bytes), put)});
  }
  if (error == 0) return put;
  errno = error;
  return -1;
}

ssize_t FaultEnv::WriteAt(int fd, const void* bytes, size_t size,
                          int64_t offset) {
  absl::MutexLock lock(&mutex_);
  const int file = FileOf(fd);
  if (file < 0) return FileEnv::WriteAt(fd, bytes, size, offset);
  int error = BeforeLocked(Call::kGrow);
  const size_t part = TakeRoom(size, error);
  const ssize_t put = part == 0 ? 0 : FileEnv::WriteAt(fd, bytes, part, offset);
  if (put > 0) {
    record_.Add({.kind = Kind::kWrite,
                 .file = file,
                 .offset = offset,
                 .bytes = std::string(static_cast<const char*>(bytes), put)});
  }
  if (error == 0) return put;
  errno = error;
  return -1;
}

int FaultEnv::Truncate(int fd, int64_t size) {
  absl::MutexLock lock(&mutex_);
  const int file = FileOf(fd);
  if (file < 0) return FileEnv::Truncate(fd, size);
  if (const int error = BeforeLocked(Call::kOther); error != 0) {
    errno = error;
    return -1;
  }
  record_.Add({.kind = Kind::kTruncate, .file = file, .offset = size});
  return FileEnv::Truncate(fd, size);
}

int FaultEnv::Allocate(int fd, int64_t size) {
  absl::MutexLock lock(&mutex_);
  const int file = FileOf(fd);
  if (file < 0) return FileEnv::Allocate(fd, size);
  int error = BeforeLocked(Call::kGrow);
  struct stat info{};
  FT_CHECK(::fstat(fd, &info) == 0);
  const int64_t growth = std::max<int64_t>(0, size - info.st_size);
  if (error == 0 && growth > room_) error = ENOSPC;
  if (error != 0) {
    errno = error;
    return -1;
  }
  room_ -= growth;
  if (growth > 0) {
    record_.Add({.kind = Kind::kTruncate, .file = file, .offset = size});
  }
  return FileEnv::Allocate(fd, size);
}

int FaultEnv::Sync(int fd) {
  std::string path(4096, '\0');
  const ssize_t length = ::readlink(absl::StrCat("/proc/self/fd/", fd).c_str(),
                                    path.data(), path.size());
  path.resize(std::max<ssize_t>(length, 0));
  std::string relative;
  const bool is_below = IsBelow(path + "/", &relative);
  struct stat info{};
  absl::MutexLock lock(&mutex_);
  if (!is_below || ::fstat(fd, &info) != 0) return FileEnv::Sync(fd);
  if (const int error = BeforeLocked(Call::kSync, relative); error != 0) {
    errno = error;
    return -1;
  }
  if (S_ISDIR(info.st_mode)) {
    record_.Add({.kind = Kind::kSyncDir, .path = relative});
  } else {
    record_.Add({.kind = Kind::kSync, .file = FileOf(fd)});
  }
  return 0;  // The machine of this test keeps its power.
}

int FaultEnv::Rename(const char* from, const char* to) {
  std::string relative_from, relative_to;
  if (!IsBelow(from, &relative_from) || !IsBelow(to, &relative_to)) {
    return FileEnv::Rename(from, to);
  }
  absl::MutexLock lock(&mutex_);
  if (const int error = BeforeLocked(Call::kOther); error != 0) {
    errno = error;
    return -1;
  }
  ForgetLocked(to);
  if (FileEnv::Rename(from, to) != 0) return -1;
  record_.Add(
      {.kind = Kind::kRename, .path = relative_from, .to = relative_to});
  return 0;
}

int FaultEnv::Link(const char* from, const char* to) {
  std::string relative_to;
  if (!IsBelow(to, &relative_to)) return FileEnv::Link(from, to);
  absl::MutexLock lock(&mutex_);
  if (const int error = BeforeLocked(Call::kGrow); error != 0) {
    errno = error;
    return -1;
  }
  if (FileEnv::Link(from, to) != 0) return -1;
  record_.Add({.kind = Kind::kLink,
               .file = FileAtLocked(from, /*is_new=*/false),
               .to = relative_to});
  return 0;
}

int FaultEnv::Unlink(const char* path) {
  std::string relative;
  if (!IsBelow(path, &relative)) return FileEnv::Unlink(path);
  absl::MutexLock lock(&mutex_);
  if (const int error = BeforeLocked(Call::kOther); error != 0) {
    errno = error;
    return -1;
  }
  ForgetLocked(path);
  if (FileEnv::Unlink(path) != 0) return -1;
  record_.Add({.kind = Kind::kUnlink, .path = relative});
  return 0;
}

int FaultEnv::MakeDir(const char* path, mode_t mode) {
  std::string relative;
  if (!IsBelow(path, &relative)) return FileEnv::MakeDir(path, mode);
  absl::MutexLock lock(&mutex_);
  if (const int error = BeforeLocked(Call::kGrow); error != 0) {
    errno = error;
    return -1;
  }
  if (FileEnv::MakeDir(path, mode) != 0) return -1;
  record_.Add({.kind = Kind::kMakeDir, .path = relative});
  return 0;
}

int FaultEnv::RemoveDir(const char* path) {
  std::string relative;
  if (!IsBelow(path, &relative)) return FileEnv::RemoveDir(path);
  absl::MutexLock lock(&mutex_);
  if (const int error = BeforeLocked(Call::kOther); error != 0) {
    errno = error;
    return -1;
  }
  if (FileEnv::RemoveDir(path) != 0) return -1;
  record_.Add({.kind = Kind::kRemoveDir, .path = relative});
  return 0;
}

}  // namespace ft::testing
