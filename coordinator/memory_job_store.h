// SPDX-License-Identifier: Apache-2.0
//
// The job store of tests and simulations: the same contract, nothing durable.
// What was committed survives a Core, as a file survives a process.

#pragma once

#include <map>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "coordinator/job_store.h"

namespace ft {

// Thread-safe.
class MemoryJobStore : public JobStore {
 public:
  absl::StatusOr<Snapshot> Load() override;
  absl::Status Commit(std::span<const Decision> batch) override;
  absl::Status PruneReplies(absl::Time before) override;
  absl::StatusOr<int64_t> FreeBytes() override { return int64_t{1} << 40; }

  absl::StatusOr<v1::Job> GetJob(absl::string_view job_id) override;
  absl::StatusOr<std::vector<v1::Job>> ListJobs(const JobQuery& query) override;
  absl::StatusOr<std::vector<v1::Event>> ListEvents(absl::string_view job_id,
                                                    int64_t after_seq,
                                                    int limit) override;
  absl::StatusOr<int64_t> LastEventSeq(absl::string_view job_id) override;
  absl::StatusOr<std::optional<StoredReply>> FindReply(
      absl::string_view principal, absl::string_view request_id) override;
  absl::StatusOr<v1::Artifact> GetArtifact(absl::string_view name) override;
  absl::StatusOr<v1::Artifact> GetArtifactByManifest(
      absl::string_view manifest_sha256) override;
  absl::StatusOr<std::vector<v1::Artifact>> ListArtifacts(
      absl::string_view job_id, absl::string_view after_name,
      int limit) override;
  absl::StatusOr<std::set<std::string>> ReferencedBlobs() override;

  // The next so many commits fail with this error and store nothing.
  void FailCommits(int count, absl::Status error);

  std::vector<AppendAudit> Audit();

 private:
  void Write(const PutJob& put) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const EraseJob& erase) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const PutAttempt& put) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const AppendEvent& append) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const PutReply& put) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const PutLastEpoch& put) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const PutSpoolMark& put) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const PutArtifact& put) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const EraseArtifact& erase) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const PutWorker& put) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write(const AppendAudit& append) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  int failures_left_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  int64_t incarnation_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t last_epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, v1::Job> jobs_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::vector<v1::Event>> events_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<std::string, std::string>, PutReply> replies_
      ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<uint64_t, std::string>, int64_t> marks_
      ABSL_GUARDED_BY(mutex_);
  std::map<std::string, ArtifactRow> artifacts_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, v1::WorkerMarks> workers_ ABSL_GUARDED_BY(mutex_);
  std::vector<AppendAudit> audit_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ft
