// SPDX-License-Identifier: Apache-2.0
//
// Removes what nothing refers to any more: blobs an hour after they were last
// wanted, uploads a day after they were last touched.

#pragma once

#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/blob_files.h"
#include "coordinator/job_store.h"

namespace ft {

struct JanitorOptions {
  absl::Duration period = absl::Minutes(10);
  absl::Duration keep_blobs = absl::Hours(1);
  absl::Duration keep_uploads = absl::Hours(24);
};

// Sweeps on a thread of its own while it lives.
class Janitor {
 public:
  // `store` and `blobs` must outlive this.
  Janitor(JobReader& store, BlobFiles& blobs, JanitorOptions options);
  ~Janitor();

  // One sweep now, as if it were `now`.
  absl::StatusOr<BlobFiles::Swept> Sweep(absl::Time now);

 private:
  void Run();

  JobReader& store_;
  BlobFiles& blobs_;
  const JanitorOptions options_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ft
