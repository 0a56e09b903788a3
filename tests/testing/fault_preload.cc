// SPDX-License-Identifier: Apache-2.0
//
// Put before a real program by LD_PRELOAD: below the folder FT_FAULTS_DIR the
// disk is full while the file FT_FAULTS_DIR/../full exists, and the fsync of
// number FT_FAULTS_SYNC fails with EIO. A file "full" that is not empty leaves
// what the worker's reserve holds: once that is gone there is room, but not for
// another reserve.

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

template <typename Call>
Call Real(const char* name, Call) {
  return reinterpret_cast<Call>(dlsym(RTLD_NEXT, name));
}

const std::string& Folder() {
  static const auto* const folder = [] {
    const char* text = std::getenv("FT_FAULTS_DIR");
    return new std::string(text == nullptr ? "" : text);
  }();
  return *folder;
}

bool IsBelow(int fd) {
  if (Folder().empty()) return false;
  char link[64], path[4096];
  std::snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  const ssize_t size = readlink(link, path, sizeof(path));
  return size > static_cast<ssize_t>(Folder().size()) &&
         std::memcmp(path, Folder().data(), Folder().size()) == 0;
}

bool IsFull() {
  static const auto* const flag =
      new std::string(Folder().substr(0, Folder().find_last_of('/')) + "/full");
  struct stat info;
  return stat(flag->c_str(), &info) == 0 &&
         (info.st_size == 0 ||
          access((Folder() + "/reserve").c_str(), F_OK) == 0);
}

bool Refuses(int fd) {
  if (!IsBelow(fd) || !IsFull()) return false;
  errno = ENOSPC;
  return true;
}

bool FailsToSync(int fd) {
  static const long wanted = [] {
    const char* text = std::getenv("FT_FAULTS_SYNC");
    return text == nullptr ? 0L : std::atol(text);
  }();
  static std::atomic<long> syncs{0};
  if (wanted == 0 || !IsBelow(fd) || ++syncs != wanted) return false;
  errno = EIO;
  return true;
}

}  // namespace

extern "C" {

ssize_t write(int fd, const void* bytes, size_t size) {
  static const auto real = Real("write", &write);
  return Refuses(fd) ? -1 : real(fd, bytes, size);
}

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  static const auto real = Real("pwrite", &pwrite);
  return Refuses(fd) ? -1 : real(fd, bytes, size, offset);
}

ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t offset) {
  static const auto real = Real("pwrite64", &pwrite64);
  return Refuses(fd) ? -1 : real(fd, bytes, size, offset);
}

int posix_fallocate(int fd, off_t offset, off_t size) {
  static const auto real = Real("posix_fallocate", &posix_fallocate);
  return Refuses(fd) ? ENOSPC : real(fd, offset, size);
}

int posix_fallocate64(int fd, off64_t offset, off64_t size) {
  static const auto real = Real("posix_fallocate64", &posix_fallocate64);
  return Refuses(fd) ? ENOSPC : real(fd, offset, size);
}

int fsync(int fd) {
  static const auto real = Real("fsync", &fsync);
  return FailsToSync(fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
  static const auto real = Real("fdatasync", &fdatasync);
  return FailsToSync(fd) ? -1 : real(fd);
}

}  // extern "C"
