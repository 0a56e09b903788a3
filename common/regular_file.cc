// SPDX-License-Identifier: Apache-2.0

#include "common/regular_file.h"

#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {

absl::Status CheckIsRegularFile(const std::string& path) {
  struct stat info;
  // Whoever reads it says why it is not there.
  if (stat(path.c_str(), &info) != 0 || S_ISREG(info.st_mode)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": is no regular file; put the file itself here"));
}

absl::StatusOr<std::string> ReadRegularFile(const std::string& path,
                                            int64_t max_bytes) {
  FT_RETURN_IF_ERROR(CheckIsRegularFile(path));
  return ReadFile(path, max_bytes);
}

}  // namespace ft
