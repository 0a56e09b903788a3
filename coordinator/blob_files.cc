// SPDX-License-Identifier: Apache-2.0

#include "coordinator/blob_files.h"

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {

std::string BlobFiles::Path(const std::string& sha256) const {
  return JoinPath(JoinPath(dir_, sha256.substr(0, 2)), sha256);
}

bool BlobFiles::Has(const std::string& sha256) {
  return IsSha256Hex(sha256) && Exists(Path(sha256));
}

absl::StatusOr<std::string> BlobFiles::ReadSmall(const std::string& sha256,
                                                 int64_t max_bytes) {
  if (!Has(sha256)) {
    return absl::NotFoundError(absl::StrCat("blob ", sha256));
  }
  FT_ASSIGN_OR_RETURN(std::string bytes, ReadFile(Path(sha256), max_bytes));
  if (Sha256Hex(bytes) != sha256) {
    return absl::DataLossError(
        absl::StrCat("blob ", sha256, " no longer has its digest"));
  }
  return bytes;
}

}  // namespace ft
