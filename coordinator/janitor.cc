// SPDX-License-Identifier: Apache-2.0

#include "coordinator/janitor.h"

#include "absl/time/clock.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/status.h"

namespace ft {

Janitor::Janitor(JobReader& store, BlobFiles& blobs, JanitorOptions options)
    : store_(store), blobs_(blobs), options_(options) {
  thread_ = std::thread([this] { Run(); });
}

Janitor::~Janitor() {
  {
    absl::MutexLock hold(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

absl::StatusOr<BlobFiles::Swept> Janitor::Sweep(absl::Time now) {
  // What is referred to after this look was asked for after it, too, and is
  // young by that.
  FT_ASSIGN_OR_RETURN(const std::set<std::string> referenced,
                      store_.ReferencedBlobs());
  Pass(Failpoint::kSweepBegins);
  return blobs_.Sweep(referenced, now - options_.keep_blobs,
                      now - options_.keep_uploads);
}

void Janitor::Run() {
  while (true) {
    {
      absl::MutexLock hold(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_),
                                  options_.period)) {
        return;
      }
    }
    const absl::StatusOr<BlobFiles::Swept> swept = Sweep(absl::Now());
    if (!swept.ok()) {
      Log(LogSeverity::kWarn, "coordinator", "sweep failed, tried again later",
          {{"error", swept.status().message()}});
    } else if (swept->blobs > 0 || swept->uploads > 0) {
      Log(LogSeverity::kInfo, "coordinator", "swept",
          {{"blobs", swept->blobs}, {"uploads", swept->uploads}});
    }
  }
}

}  // namespace ft
