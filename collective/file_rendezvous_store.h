// SPDX-License-Identifier: Apache-2.0
//
// A rendezvous for ranks that are processes of one machine, or share a file
// system: a key is a file in a folder of the attempt's own.

#pragma once

#include <string>

#include "collective/rendezvous_store.h"

namespace ft {

// Thread-safe.
class FileRendezvousStore : public RendezvousStore {
 public:
  // `dir` must exist, be readable by the job's user alone, and be empty when
  // the attempt begins.
  explicit FileRendezvousStore(std::string dir) : dir_(std::move(dir)) {}

  // INVALID_ARGUMENT: the key cannot be a file's name.
  absl::Status Set(absl::string_view key, absl::string_view value) override;
  absl::StatusOr<std::string> Get(absl::string_view key,
                                  absl::Duration timeout) override;

 private:
  absl::StatusOr<std::string> PathOf(absl::string_view key) const;

  const std::string dir_;
};

}  // namespace ft
