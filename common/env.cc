// SPDX-License-Identifier: Apache-2.0

#include "common/env.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace ft {
namespace {

// Never destroyed: threads may write until the process ends.
FileEnv& SystemFiles() {
  static auto* const system = new FileEnv;
  return *system;
}

FileEnv* replaced = nullptr;

}  // namespace

int FileEnv::Open(const char* path, int flags, mode_t mode) {
  return ::open(path, flags, mode);
}

ssize_t FileEnv::Write(int fd, const void* bytes, size_t size) {
  return ::write(fd, bytes, size);
}

ssize_t FileEnv::WriteAt(int fd, const void* bytes, size_t size,
                         int64_t offset) {
  return ::pwrite(fd, bytes, size, offset);
}

int FileEnv::Truncate(int fd, int64_t size) { return ::ftruncate(fd, size); }

int FileEnv::Allocate(int fd, int64_t size) {
  const int error = ::posix_fallocate(fd, 0, size);
  errno = error;  // It alone returns it.
  return error == 0 ? 0 : -1;
}

int FileEnv::Sync(int fd) { return ::fsync(fd); }

int FileEnv::Rename(const char* from, const char* to) {
  return ::rename(from, to);
}

int FileEnv::Link(const char* from, const char* to) { return ::link(from, to); }

int FileEnv::Unlink(const char* path) { return ::unlink(path); }

int FileEnv::MakeDir(const char* path, mode_t mode) {
  return ::mkdir(path, mode);
}

int FileEnv::RemoveDir(const char* path) { return ::rmdir(path); }

FileEnv& Files() { return replaced != nullptr ? *replaced : SystemFiles(); }

void ReplaceFiles(FileEnv* env) { replaced = env; }

}  // namespace ft
