// SPDX-License-Identifier: Apache-2.0
//
// Blobs as the job book needs them: whether one is there, and small ones whole.

#pragma once

#include <string>

#include "coordinator/job_book.h"

namespace ft {

// Thread-safe.
class BlobFiles : public BlobIndex {
 public:
  explicit BlobFiles(std::string dir) : dir_(std::move(dir)) {}

  bool Has(const std::string& sha256) override;
  absl::StatusOr<std::string> ReadSmall(const std::string& sha256,
                                        int64_t max_bytes) override;

 private:
  std::string Path(const std::string& sha256) const;
  const std::string dir_;
};

}  // namespace ft
