// SPDX-License-Identifier: Apache-2.0
//
// One reader of TailLogs: reads the stored lines from where it is and, if it
// follows, is woken when there are more.

#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "coordinator/event_bus.h"
#include "coordinator/job_store.h"
#include "coordinator/run_records.h"
#include "ft/v1/jobs.pb.h"

namespace ft {

// Not thread-safe; Pull may block on the disk.
class LogTail {
 public:
  // `store`, `bus` and `records` must outlive this.
  LogTail(JobReader& store, EventBus& bus, RunRecords& records,
          const v1::TailLogsRequest& request, absl::Time now,
          std::function<void()> wake);

  struct Batch {
    v1::TailLogsResponse lines;  // May be empty.
    bool more = false;
    bool finished = false;
  };

  // NOT_FOUND: no such job.
  absl::StatusOr<Batch> Pull();

 private:
  absl::StatusOr<bool> IsOver(const EventBus::News& news);
  absl::Status SkipToTail(Batch& batch);

  JobReader& store_;
  RunRecords& records_;
  const v1::TailLogsRequest request_;
  LogQuery query_;
  const std::unique_ptr<EventBus::Watch> watch_;
  bool has_begun_ = false;
  int64_t offset_ = 0;
};

}  // namespace ft
