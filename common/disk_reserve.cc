// SPDX-License-Identifier: Apache-2.0

#include "common/disk_reserve.h"

#include <fcntl.h>

#include <cerrno>

#include "common/env.h"
#include "common/file.h"
#include "common/log.h"
#include "common/status.h"

namespace ft {

void DiskReserve::Keep() {
  absl::MutexLock lock(&mutex_);
  if (state_ == State::kKept) return;
  if (FileSize(options_.path).value_or(-1) != options_.bytes) {
    // Of another size, or half made.
    RemoveFile(options_.path).IgnoreError();  // Tried again with the next call.
    const int64_t free_bytes = options_.free_bytes().value_or(0);
    if (options_.bytes == 0 || free_bytes / 2 < options_.bytes) return;
  }
  if (!Take().ok()) {
    // The room went to somebody else; the next call looks again.
    RemoveFile(options_.path).IgnoreError();
    return;
  }
  if (state_.exchange(State::kKept) == State::kSpent) {
    Log(LogSeverity::kInfo, "disk", "has room again, the reserve is kept",
        {{"path", options_.path}, {"bytes", options_.bytes}});
  }
}

absl::Status DiskReserve::Take() {
  const std::string& path = options_.path;
  const UniqueFd fd(
      Files().Open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.is_open() || Files().Allocate(fd.get(), options_.bytes) != 0) {
    return ErrnoStatus(errno, path);
  }
  return absl::OkStatus();
}

void DiskReserve::Release() {
  absl::MutexLock lock(&mutex_);
  if (state_ != State::kKept) return;
  RemoveFile(options_.path).IgnoreError();  // Still there, it is kept again.
  state_ = State::kSpent;
  Log(LogSeverity::kWarn, "disk",
      "full, the reserve is given back until there is room",
      {{"path", options_.path}, {"bytes", options_.bytes}});
}

}  // namespace ft
