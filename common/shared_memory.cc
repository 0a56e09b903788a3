// SPDX-License-Identifier: Apache-2.0

#include "common/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "common/status.h"

namespace ft {

absl::StatusOr<UniqueFd> CreateSharedMemory(const std::string& name,
                                            int64_t bytes) {
  UniqueFd fd(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.is_open()) return ErrnoStatus(errno, "memfd_create");
  // Not ftruncate: that promises pages which a full machine cannot give, and
  // the first touch would be a SIGBUS.
  const int error = posix_fallocate(fd.get(), 0, bytes);
  if (error != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no ", bytes, " bytes of shared memory: ",
                     ErrnoStatus(error, "fallocate").message()));
  }
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) !=
      0) {
    return ErrnoStatus(errno, "seal shared memory");
  }
  return fd;
}

bool IsSizeSealed(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
}

}  // namespace ft
