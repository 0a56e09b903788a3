// SPDX-License-Identifier: Apache-2.0
//
// ftctl's end of the coordinator's API: address, token, deadlines. gRPC stays
// behind it.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "artifact/transfer.h"
#include "ctl/command.h"
#include "ft/v1/admin.pb.h"
#include "ft/v1/jobs.pb.h"

namespace ft {

// Not thread-safe.
class Client {
 public:
  // By the options, or the local service's endpoint file and token.
  // UNAVAILABLE: no service is known. UNAUTHENTICATED: the token cannot be
  // read.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(
      const GlobalOptions& options);
  ~Client();

  absl::StatusOr<v1::Job> CreateJob(const v1::CreateJobRequest& request);
  absl::StatusOr<v1::Job> GetJob(const std::string& job_id);
  absl::StatusOr<v1::ListJobsResponse> ListJobs(
      const v1::ListJobsRequest& request);
  absl::StatusOr<v1::Job> CancelJob(const std::string& job_id);
  absl::StatusOr<v1::Job> ResumeJob(const std::string& job_id);
  absl::Status DeleteJob(const std::string& job_id);
  absl::StatusOr<v1::ListEventsResponse> ListEvents(
      const v1::ListEventsRequest& request);
  // The points after `after_step`, all pages of them.
  absl::StatusOr<v1::ListMetricsResponse> ListMetrics(const std::string& job_id,
                                                      int64_t after_step);
  // Calls on_update for each message until the job has ended or it returns
  // false; goes on by itself after a break.
  absl::Status WatchJob(
      const std::string& job_id,
      const std::function<bool(const v1::WatchJobResponse&)>& on_update);
  // Calls on_line for each line; goes on by itself after a break.
  absl::Status TailLogs(const v1::TailLogsRequest& request,
                        const std::function<void(const v1::LogLine&)>& on_line);
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers();
  absl::StatusOr<v1::WorkerInfo> ReleaseWorker(const std::string& worker_id);
  absl::StatusOr<v1::ListModelsResponse> ListModels();
  // Whether the coordinator answers at all. DEADLINE_EXCEEDED: not within
  // `timeout`.
  absl::Status Probe(absl::Duration timeout);

  // Told when a stream broke and is tried again.
  void OnBreak(std::function<void(const absl::Status&)> on_break) {
    on_break_ = std::move(on_break);
  }

  ArtifactTransfer& artifacts() { return *artifacts_; }

 private:
  struct Stubs;
  Client(const std::string& address, std::string token);
  absl::Status Streamed(
      const std::function<absl::Status(int64_t& received)>& once);

  std::string token_;
  std::function<void(const absl::Status&)> on_break_;
  std::unique_ptr<Stubs> stubs_;
  std::unique_ptr<ArtifactTransfer> artifacts_;
};

}  // namespace ft
