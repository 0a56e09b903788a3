// SPDX-License-Identifier: Apache-2.0
//
// What the coordinator can do, free of gRPC: it posts commands to the core and
// answers after their commit. The services translate to it; tests call it
// directly.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/access.h"
#include "coordinator/blob_desk.h"
#include "coordinator/committer.h"
#include "coordinator/effect_router.h"
#include "coordinator/event_bus.h"
#include "coordinator/job_store.h"
#include "coordinator/job_watch.h"
#include "coordinator/log_tail.h"
#include "coordinator/run_records.h"
#include "coordinator/task_pool.h"

namespace ft {

// Checks a job spec as the user's own tools do, and fixes every default in it.
class SpecChecker {
 public:
  virtual ~SpecChecker() = default;

  // INVALID_ARGUMENT(INVALID_SPEC) with the wrong fields, as many as a reply
  // holds, and how many more there are.
  virtual absl::Status CheckAndFix(v1::JobSpec& spec) const = 0;
};

// Thread-safe. No method blocks: each calls `done` once, from any thread.
class JobBook {
 public:
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;
  using DoneEmpty = std::function<void(absl::Status)>;

  struct Parts {
    JobStore& store;
    Committer& committer;
    EffectRouter& router;
    EventBus& bus;
    RunRecords& records;
    CoordinatorMetrics& metrics;
    const SpecChecker& checker;
    BlobDesk& blobs;
    TaskPool& pool;
  };
  // Everything in `parts` must outlive this.
  explicit JobBook(Parts parts) : parts_(parts) {}

  // Contracts: jobs.proto.
  void CreateJob(const Principal& who, v1::CreateJobRequest request,
                 Done<v1::Job> done);
  void GetJob(v1::GetJobRequest request, Done<v1::Job> done);
  void ListJobs(v1::ListJobsRequest request, Done<v1::ListJobsResponse> done);
  void CancelJob(const Principal& who, v1::CancelJobRequest request,
                 Done<v1::Job> done);
  void ResumeJob(const Principal& who, v1::ResumeJobRequest request,
                 Done<v1::Job> done);
  void DeleteJob(const Principal& who, v1::DeleteJobRequest request,
                 DoneEmpty done);
  void ListEvents(v1::ListEventsRequest request,
                  Done<v1::ListEventsResponse> done);
  void ListMetrics(v1::ListMetricsRequest request,
                   Done<v1::ListMetricsResponse> done);

  // `wake` is called from any thread when Pull may have something new.
  std::unique_ptr<JobWatch> WatchJob(const v1::WatchJobRequest& request,
                                     std::function<void()> wake);
  std::unique_ptr<LogTail> TailLogs(const v1::TailLogsRequest& request,
                                    std::function<void()> wake);

  // Contracts: artifacts.proto.
  void CommitArtifact(const Principal& who, v1::CommitArtifactRequest request,
                      Done<v1::Artifact> done);
  void GetArtifact(v1::GetArtifactRequest request, Done<v1::Artifact> done);
  void ListArtifacts(v1::ListArtifactsRequest request,
                     Done<v1::ListArtifactsResponse> done);
  void DeleteArtifact(const Principal& who, v1::DeleteArtifactRequest request,
                      DoneEmpty done);

  // Contracts: admin.proto.
  v1::ListWorkersResponse ListWorkers() const;
  void ReleaseWorker(const Principal& who, v1::ReleaseWorkerRequest request,
                     Done<v1::WorkerInfo> done);
  v1::ListModelsResponse ListModels() const;

  // Contracts: workers.proto. A session is one stream.
  uint64_t OpenSession(std::shared_ptr<WorkerLink> link);
  void Receive(uint64_t session, v1::ConnectRequest message);
  void CloseSession(uint64_t session);
  // Stores the report, then answers how far they are stored.
  void Report(v1::ReportRequest report, Done<v1::ReportResponse> done);

  // OK: `epoch` acts for the job. ABORTED(STALE_EPOCH) else.
  absl::Status CheckEpoch(const std::string& job_id, uint64_t epoch) const;

  TaskPool& pool() { return parts_.pool; }

 private:
  void ShowProgress(const std::string& job_id,
                    const RunRecords::Stored& stored);
  template <typename Call>
  void Post(Call call, std::function<void(const Reply&)> on_reply);
  template <typename Call>
  void Mutate(const Principal& who, Method method, std::string request_id,
              std::string body, Call call,
              std::function<void(const Reply&)> on_reply);
  void ShowViews(v1::Job& job) const;
  absl::Status CheckDatasets(const v1::JobSpec& spec);
  absl::Status ReadFailed(ResumeCommand& resume);
  absl::Status CheckInputs(const v1::Job& job);
  absl::StatusOr<v1::Manifest> ReadManifest(const std::string& sha256);
  void AnswerJob(const Reply& reply, const Done<v1::Job>& done);

  const Parts parts_;
};

}  // namespace ft
