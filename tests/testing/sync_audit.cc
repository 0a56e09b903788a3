// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into programs (LD_PRELOAD): notes each file that gets its name by
// rename while bytes of it were not synced; after a power loss it could be
// empty under that name. A line a fault goes to the file $FT_SYNC_AUDIT. A kill
// leaves what was written in the page cache, so nothing else in a test would
// notice.

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>

namespace {

using Inode = std::pair<dev_t, ino_t>;

// Never destroyed: programs write until their very end.
std::mutex& Mutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}
std::set<Inode>& Unsynced() {
  static auto* const unsynced = new std::set<Inode>;
  return *unsynced;
}

template <typename Function>
Function Real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

void Note(int fd, bool is_synced) {
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return;
  const std::lock_guard<std::mutex> hold(Mutex());
  if (is_synced) {
    Unsynced().erase({info.st_dev, info.st_ino});
  } else {
    Unsynced().insert({info.st_dev, info.st_ino});
  }
}

void Judge(const char* from, const char* to) {
  struct stat info;
  if (stat(from, &info) != 0 || !S_ISREG(info.st_mode)) return;
  {
    const std::lock_guard<std::mutex> hold(Mutex());
    if (Unsynced().count({info.st_dev, info.st_ino}) == 0) return;
  }
  const char* const path = std::getenv("FT_SYNC_AUDIT");
  if (path == nullptr) return;
  char line[8192];
  const int size =
      std::snprintf(line, sizeof(line),
                    "%s was renamed to %s before it was synced\n", from, to);
  const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return;
  static const auto real = Real<ssize_t (*)(int, const void*, size_t)>("write");
  if (real(fd, line, static_cast<size_t>(size)) != size) abort();
  close(fd);
}

}  // namespace

extern "C" {

ssize_t write(int fd, const void* data, size_t size) {
  static const auto real = Real<ssize_t (*)(int, const void*, size_t)>("write");
  Note(fd, false);
  return real(fd, data, size);
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  static const auto real =
      Real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
  Note(fd, false);
  return real(fd, data, size, offset);
}

int ftruncate(int fd, off_t size) noexcept {
  static const auto real = Real<int (*)(int, off_t)>("ftruncate");
  Note(fd, false);
  return real(fd, size);
}

int fsync(int fd) {
  static const auto real = Real<int (*)(int)>("fsync");
  const int result = real(fd);
  if (result == 0) Note(fd, true);
  return result;
}

int fdatasync(int fd) {
  static const auto real = Real<int (*)(int)>("fdatasync");
  const int result = real(fd);
  if (result == 0) Note(fd, true);
  return result;
}

int rename(const char* from, const char* to) noexcept {
  static const auto real = Real<int (*)(const char*, const char*)>("rename");
  Judge(from, to);
  return real(from, to);
}

}  // extern "C"
