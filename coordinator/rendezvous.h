// SPDX-License-Identifier: Apache-2.0
//
// Where the ranks of an attempt meet: keys that are set once, by epoch. Kept in
// memory only; the daemons send their ranks' keys again after a break.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "ft/v1/workers.pb.h"

namespace ft {

// Not thread-safe: the core thread owns it.
class Rendezvous {
 public:
  // A rank that waits for a key.
  struct Waiter {
    std::string worker_id;
    int32_t rank = 0;
  };

  static constexpr size_t kMaxKeys = 4096;
  static constexpr size_t kMaxKeyBytes = 256;
  static constexpr size_t kMaxValueBytes = 64 << 10;
  static constexpr size_t kMaxWaiters = 4096;  // For one key.

  // Sets a key and returns who waited for it.
  // ALREADY_EXISTS: it has another value, which stays.
  // RESOURCE_EXHAUSTED: a limit; nothing was set.
  absl::StatusOr<std::vector<Waiter>> Set(const v1::RendezvousSet& set);

  // Returns the value, or null and remembers the waiter (once, and within the
  // limits).
  const std::string* Get(const v1::RendezvousGet& get,
                         const std::string& worker_id);

  // Forgets what `epoch` has set and waits for.
  void Drop(uint64_t epoch) { tables_.erase(epoch); }

 private:
  struct Table {
    std::map<std::string, std::string> values;
    std::map<std::string, std::vector<Waiter>> waiters;
  };

  absl::flat_hash_map<uint64_t, Table> tables_;
};

}  // namespace ft
