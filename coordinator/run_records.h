// SPDX-License-Identifier: Apache-2.0
//
// What ranks report in bulk: metric points and log lines, in two segment files
// a job. A point is keyed by (job, step): a step taken again by a later attempt
// must have the same bits, and replaces the earlier point.

#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/segment_log.h"
#include "ft/v1/events.pb.h"
#include "ft/v1/jobs.pb.h"
#include "ft/v1/workers.pb.h"

namespace ft {

// Which log lines a reader wants.
struct LogQuery {
  std::optional<int32_t> rank;
  v1::LogLevel min_level = v1::LOG_LEVEL_UNSPECIFIED;
  std::optional<absl::Time> since;
};

// Thread-safe; may block on the disk.
class RunRecords {
 public:
  static constexpr int64_t kMaxLogBytes = int64_t{256} << 20;
  // Jobs whose files are open; beyond, those used longest ago are closed.
  static constexpr size_t kMaxOpen = 64;

  explicit RunRecords(std::string dir) : dir_(std::move(dir)) {}

  struct Diverged {
    int64_t step = 0;
    std::string message;
  };
  struct Stored {
    bool is_new = false;  // Not a message that was sent again.
    std::vector<Diverged> diverged;
    std::optional<v1::StepMetrics> progress;    // The newest in the message.
    std::optional<v1::StepMetrics> evaluation;  // The same with an eval_loss.
  };

  // Stores one message of a worker.
  // INVALID_ARGUMENT: no job id. RESOURCE_EXHAUSTED: no space.
  absl::StatusOr<Stored> Append(const v1::ReportRequest& report);

  // Points with a step after `after_step`, by step, at most `limit`, and one
  // more where the last step has an evaluation too: who goes on after that step
  // would never see it.
  absl::StatusOr<std::vector<v1::StepMetrics>> Metrics(
      const std::string& job_id, int64_t after_step, int limit);

  // The newest step of which a point is stored; 0: none.
  absl::StatusOr<int64_t> LastStep(const std::string& job_id);

  struct Lines {
    std::vector<v1::LogLine> lines;
    int64_t next_offset = 0;
    bool more = false;
  };
  // Lines from an offset on, about 256 KiB at most.
  absl::StatusOr<Lines> Logs(const std::string& job_id, int64_t offset,
                             const LogQuery& query);

  // Closes the files of a job that ended; a later report opens them again.
  void Close(const std::string& job_id);

  // Removes the files.
  absl::Status Remove(const std::string& job_id);

 private:
  struct JobRecords {
    uint64_t last_use = 0;  // Guarded by the mutex of RunRecords.
    absl::Mutex mutex;
    std::optional<SegmentLog> metrics ABSL_GUARDED_BY(mutex);
    std::optional<SegmentLog> logs ABSL_GUARDED_BY(mutex);
    // By step and whether it is an evaluation.
    std::map<std::pair<int64_t, bool>, v1::StepMetrics> points
        ABSL_GUARDED_BY(mutex);
    // Highest seq by (epoch, worker).
    std::map<std::pair<uint64_t, std::string>, int64_t> seqs
        ABSL_GUARDED_BY(mutex);
  };

  std::string Path(const std::string& job_id, const char* name) const;
  absl::StatusOr<std::shared_ptr<JobRecords>> Open(const std::string& job_id);
  absl::Status Load(const std::string& job_id, JobRecords& records);
  void CloseUnused() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Keep(const v1::ReportRequest& report, JobRecords& records,
                   Stored& stored);

  const std::string dir_;
  absl::Mutex mutex_;
  uint64_t uses_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::shared_ptr<JobRecords>> jobs_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace ft
