// SPDX-License-Identifier: Apache-2.0

#include "train/local_file.h"

#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {

absl::StatusOr<v1::LocalFile> DescribeFile(const std::string& dir,
                                           const std::string& name) {
  const std::string path = JoinPath(dir, name);
  v1::LocalFile file;
  file.set_path(name);
  FT_ASSIGN_OR_RETURN(const int64_t bytes, FileSize(path));
  file.set_bytes(bytes);
  FT_ASSIGN_OR_RETURN(*file.mutable_sha256(), Sha256OfFile(path));
  return file;
}

}  // namespace ft
