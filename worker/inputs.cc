// SPDX-License-Identifier: Apache-2.0

#include "worker/inputs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "artifact/manifest.h"
#include "common/digest.h"
#include "common/env.h"
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
    if (found == sha256) {
      // The time of its last use; only Trim looks at it.
      utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
      return path;
    }
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
    if (Files().Link(blob.c_str(), path.c_str()) != 0 && errno != EEXIST) {
      return ErrnoStatus(errno, absl::StrCat("link ", path));
    }
  }
  return absl::OkStatus();
}

absl::Status InputCache::Trim(int64_t max_bytes) {
  if (!IsDirectory(dir_)) return absl::OkStatus();
  struct Blob {
    absl::Time used;
    int64_t bytes;
    std::string path;
  };
  std::vector<Blob> blobs;
  int64_t total = 0;
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(dir_));
  for (const std::string& name : names) {
    const std::string path = JoinPath(dir_, name);
    struct stat info = {};
    if (!IsSha256Hex(name)) {
      FT_RETURN_IF_ERROR(RemoveFile(path));
    } else if (stat(path.c_str(), &info) == 0) {
      blobs.push_back(
          {absl::TimeFromTimespec(info.st_mtim), info.st_size, path});
      total += info.st_size;
    }
  }
  std::sort(blobs.begin(), blobs.end(),
            [](const Blob& a, const Blob& b) { return a.used < b.used; });
  for (const Blob& blob : blobs) {
    if (total <= max_bytes) break;
    FT_RETURN_IF_ERROR(RemoveFile(blob.path));
    total -= blob.bytes;
  }
  return absl::OkStatus();
}

}  // namespace ft
