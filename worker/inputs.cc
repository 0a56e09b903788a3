// SPDX-License-Identifier: Apache-2.0

#include "worker/inputs.h"

#include <unistd.h>

#include <cerrno>

#include "artifact/manifest.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {

absl::StatusOr<std::string> InputCache::Fetch(const std::string& sha256,
                                              int64_t bytes) {
  if (!IsSha256Hex(sha256)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", sha256.substr(0, 80), "\" is no digest"));
  }
  FT_RETURN_IF_ERROR(MakeDirs(dir_, 0700));
  const std::string path = JoinPath(dir_, sha256);
  if (Exists(path)) {
    // A disk may rot between two attempts: what is loaded was verified.
    FT_ASSIGN_OR_RETURN(const std::string found, Sha256OfFile(path));
    if (found == sha256) return path;
    FT_RETURN_IF_ERROR(RemoveFile(path));
  }
  const std::string own = absl::StrCat(path, ".", RandomHex(6));
  FT_RETURN_IF_ERROR(transfer_.Download(sha256, bytes, own), "blob ",
                     sha256.substr(0, 12));
  FT_RETURN_IF_ERROR(RenameDurably(own, path));
  return path;
}

absl::Status InputCache::FetchManifest(const std::string& manifest_sha256,
                                       const std::string& dir) {
  FT_ASSIGN_OR_RETURN(const v1::Manifest manifest,
                      transfer_.ReadManifest(manifest_sha256));
  FT_RETURN_IF_ERROR(MakeDirs(dir, 0700));
  for (const v1::FileEntry& file : manifest.files()) {
    FT_ASSIGN_OR_RETURN(const std::string blob,
                        Fetch(file.sha256(), file.bytes()), file.path());
    const std::string path = JoinPath(dir, file.path());
    FT_RETURN_IF_ERROR(MakeDirs(DirName(path), 0700));
    if (link(blob.c_str(), path.c_str()) != 0 && errno != EEXIST) {
      return ErrnoStatus(errno, absl::StrCat("link ", path));
    }
  }
  return absl::OkStatus();
}

}  // namespace ft
