// SPDX-License-Identifier: Apache-2.0
//
// Where the ranks of an attempt find each other: keys set once and read by all.
// train/ gives it over the daemon link; every key belongs to one epoch.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ft {

// Thread-safe.
class RendezvousStore {
 public:
  virtual ~RendezvousStore() = default;

  // ALREADY_EXISTS may be returned for another value of a key that is set.
  virtual absl::Status Set(absl::string_view key, absl::string_view value) = 0;

  // Waits for the key. DEADLINE_EXCEEDED: nobody set it within `timeout`.
  virtual absl::StatusOr<std::string> Get(absl::string_view key,
                                          absl::Duration timeout) = 0;
};

}  // namespace ft
