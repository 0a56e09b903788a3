// SPDX-License-Identifier: Apache-2.0
//
// One reader of WatchJob: what it has been told, and what comes next. Events
// are read from the store by number, so there is no gap and no repeat; metric
// points in between may be left out.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/event_bus.h"
#include "coordinator/job_store.h"
#include "ft/v1/jobs.pb.h"

namespace ft {

// Not thread-safe; Pull may block on the disk.
class JobWatch {
 public:
  // `store` and `bus` must outlive this.
  JobWatch(JobReader& store, EventBus& bus, const v1::WatchJobRequest& request,
           std::function<void()> wake);

  struct Batch {
    std::vector<v1::WatchJobResponse> messages;
    bool more = false;      // Pull again at once.
    bool finished = false;  // The job has ended, and everything was told.
  };

  // What is new; may be nothing.
  // NOT_FOUND: no such job. INVALID_ARGUMENT: a token that we did not make.
  absl::StatusOr<Batch> Pull();

 private:
  absl::Status Begin(Batch& batch);
  void Tell(Batch& batch, v1::WatchJobResponse message);
  void TellJob(Batch& batch, const v1::Job& job);
  void TellPoint(Batch& batch, const std::optional<v1::StepMetrics>& point,
                 std::pair<int64_t, uint64_t>& told);

  JobReader& store_;
  const v1::WatchJobRequest request_;
  const std::unique_ptr<EventBus::Watch> watch_;
  bool has_begun_ = false;
  int64_t told_seq_ = 0;
  v1::JobState told_state_ = v1::JOB_STATE_UNSPECIFIED;
  int told_attempts_ = 0;
  std::pair<int64_t, uint64_t> told_progress_;    // Step, epoch.
  std::pair<int64_t, uint64_t> told_evaluation_;  // Step, epoch.
};

// "e17": events up to 17 were told. INVALID_ARGUMENT: not of this form.
std::string MakeResumeToken(int64_t seq);
absl::StatusOr<int64_t> ParseResumeToken(const std::string& token);

}  // namespace ft
