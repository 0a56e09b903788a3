// SPDX-License-Identifier: Apache-2.0
//
// A rendezvous for ranks that are threads of one process.

#pragma once

#include <functional>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "collective/rendezvous_store.h"

namespace ft {

// Thread-safe.
class MemoryRendezvousStore : public RendezvousStore {
 public:
  absl::Status Set(absl::string_view key, absl::string_view value) override;
  absl::StatusOr<std::string> Get(absl::string_view key,
                                  absl::Duration timeout) override;

 private:
  absl::Mutex mutex_;
  std::map<std::string, std::string, std::less<>> values_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace ft
