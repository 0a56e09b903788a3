// SPDX-License-Identifier: Apache-2.0

#include "artifact/manifest.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {

std::string SerializeManifest(v1::Manifest manifest) {
  std::sort(manifest.mutable_files()->begin(), manifest.mutable_files()->end(),
            [](const v1::FileEntry& a, const v1::FileEntry& b) {
              return a.path() < b.path();
            });
  return manifest.SerializeAsString();  // No map is in it: one form only.
}

absl::StatusOr<v1::Manifest> ParseManifest(absl::string_view bytes) {
  if (static_cast<int64_t>(bytes.size()) > kMaxManifestBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the manifest has ", bytes.size(), " bytes; at most ",
                     kMaxManifestBytes));
  }
  v1::Manifest manifest;
  if (!manifest.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("the blob is no manifest");
  }
  FT_RETURN_IF_ERROR(CheckManifest(manifest));
  return manifest;
}

absl::Status CheckManifest(const v1::Manifest& manifest) {
  if (manifest.files_size() > kMaxManifestFiles) {
    return absl::InvalidArgumentError(
        absl::StrCat("the manifest has ", manifest.files_size(),
                     " files; at most ", kMaxManifestFiles));
  }
  if (manifest.step() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("manifest: step ", manifest.step(), " is negative"));
  }
  std::set<std::string> paths;
  int64_t bytes = 0;
  for (const v1::FileEntry& file : manifest.files()) {
    if (!IsSafeRelativePath(file.path())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "manifest: \"", file.path().substr(0, 100), "\" is no safe path"));
    }
    if (!paths.insert(file.path()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("manifest: ", file.path(), " stands twice"));
    }
    if (!IsSha256Hex(file.sha256()) || file.bytes() < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "manifest: ", file.path(), " has no digest or a negative size"));
    }
    if (file.bytes() > kMaxArtifactBytes - bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("manifest: with ", file.path(), " of ", file.bytes(),
                       " bytes the files have more than ", kMaxArtifactBytes));
    }
    bytes += file.bytes();
  }
  return absl::OkStatus();
}

int64_t BytesOf(const v1::Manifest& manifest) {
  int64_t bytes = 0;
  for (const v1::FileEntry& file : manifest.files()) bytes += file.bytes();
  return bytes;
}

}  // namespace ft
