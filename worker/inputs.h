// SPDX-License-Identifier: Apache-2.0
//
// What an attempt needs before its ranks start: data sets and checkpoint files
// by digest, fetched into the cache once and verified.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "artifact/transfer.h"

namespace ft {

// Thread-safe: two attempts that want one file fetch it to one place, and the
// rename decides.
class InputCache {
 public:
  // `transfer` must outlive it.
  InputCache(std::string dir, ArtifactTransfer& transfer)
      : dir_(std::move(dir)), transfer_(transfer) {}

  // The local path of a blob.
  absl::StatusOr<std::string> Fetch(const std::string& sha256, int64_t bytes);

  // Links every file of a manifest into `dir` under its own path.
  absl::Status FetchManifest(const std::string& manifest_sha256,
                             const std::string& dir);

  // Removes what a crash left, then the blobs that were not used for longest
  // until at most `max_bytes` are left. Only while no attempt is here.
  absl::Status Trim(int64_t max_bytes);

 private:
  const std::string dir_;
  ArtifactTransfer& transfer_;
};

}  // namespace ft
