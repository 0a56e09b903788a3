// SPDX-License-Identifier: Apache-2.0

#include "common/failpoint.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {
namespace {

static_assert(std::atomic<int64_t>::is_always_lock_free,
              "the table is shared between processes");

constexpr absl::string_view kNames[] = {
#define FT_FAILPOINT_NAME(enumerator, name) name,
    FT_FAILPOINTS(FT_FAILPOINT_NAME)
#undef FT_FAILPOINT_NAME
};

std::string& OpenedPath() {
  static std::string* const path = new std::string();
  return *path;
}

}  // namespace

namespace internal {

std::atomic<FailpointTable*> failpoints{nullptr};

void PassArmed(FailpointTable& table, Failpoint point) {
  FailpointTable::Slot& slot = table.slots[static_cast<int>(point)];
  slot.passed.fetch_add(1);
  int64_t left = slot.countdown.load();
  // Disarmed meanwhile: nobody counts below zero.
  while (left > 0 && !slot.countdown.compare_exchange_weak(left, left - 1)) {
  }
  if (left != 1) return;
  slot.killed.fetch_add(1);
  kill(getpid(), SIGKILL);
  while (true) pause();
}

}  // namespace internal

absl::string_view FailpointName(Failpoint point) {
  return kNames[static_cast<int>(point)];
}

std::optional<Failpoint> FindFailpoint(absl::string_view name) {
  for (int i = 0; i < kFailpoints; ++i) {
    if (kNames[i] == name) return static_cast<Failpoint>(i);
  }
  return std::nullopt;
}

absl::Status OpenFailpoints(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, path);
  if (!S_ISREG(info.st_mode) || info.st_uid != geteuid() ||
      (info.st_mode & 077) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path,
                     ": a table of failpoints must be a file of this "
                     "user alone, mode 0600"));
  }
  if (info.st_size != sizeof(FailpointTable)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no table of failpoints of this build"));
  }
  void* const mapped = mmap(nullptr, sizeof(FailpointTable),
                            PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) return ErrnoStatus(errno, path);
  auto* const table = static_cast<FailpointTable*>(mapped);
  if (table->magic != FailpointTable::kMagic) {
    munmap(mapped, sizeof(FailpointTable));
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no table of failpoints"));
  }
  OpenedPath() = path;
  internal::failpoints.store(table);
  return absl::OkStatus();
}

const std::string& FailpointsPath() { return OpenedPath(); }

}  // namespace ft
