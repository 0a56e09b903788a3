// SPDX-License-Identifier: Apache-2.0

#include "collective/memory_rendezvous_store.h"

#include "absl/strings/str_cat.h"

namespace ft {

absl::Status MemoryRendezvousStore::Set(absl::string_view key,
                                        absl::string_view value) {
  absl::MutexLock lock(&mutex_);
  const auto [at, is_new] =
      values_.try_emplace(std::string(key), std::string(value));
  if (!is_new && at->second != value) {
    return absl::AlreadyExistsError(absl::StrCat(key, " has another value"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> MemoryRendezvousStore::Get(absl::string_view key,
                                                       absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto is_set = [this, key]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return values_.contains(key);
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&is_set), timeout)) {
    return absl::DeadlineExceededError(absl::StrCat(
        "nobody set ", key, " within ", absl::FormatDuration(timeout)));
  }
  return values_.find(key)->second;
}

}  // namespace ft
