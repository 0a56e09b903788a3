// SPDX-License-Identifier: Apache-2.0
//
// Where the coordinator's state is durable. The tables are the truth; the
// events are the timeline; both change in one transaction.

#pragma once

#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/decision.h"

namespace ft {

// Which jobs ListJobs wants; newest first.
struct JobQuery {
  int page_size = 50;
  int64_t before_submit_seq = 0;  // 0: from the newest.
  std::vector<v1::JobState> states;
  std::string name;
};

// Reads see what is committed. Thread-safe.
class JobReader {
 public:
  virtual ~JobReader() = default;

  // NOT_FOUND: no such job.
  virtual absl::StatusOr<v1::Job> GetJob(absl::string_view job_id) = 0;
  virtual absl::StatusOr<std::vector<v1::Job>> ListJobs(
      const JobQuery& query) = 0;

  // Events with a seq after `after_seq`, at most `limit`.
  virtual absl::StatusOr<std::vector<v1::Event>> ListEvents(
      absl::string_view job_id, int64_t after_seq, int limit) = 0;

  // The seq of the job's newest event; 0: it has none.
  virtual absl::StatusOr<int64_t> LastEventSeq(absl::string_view job_id) = 0;

  // Nullopt: the request_id is new.
  virtual absl::StatusOr<std::optional<StoredReply>> FindReply(
      absl::string_view principal, absl::string_view request_id) = 0;

  // NOT_FOUND: no such artifact.
  virtual absl::StatusOr<v1::Artifact> GetArtifact(absl::string_view name) = 0;
  virtual absl::StatusOr<v1::Artifact> GetArtifactByManifest(
      absl::string_view manifest_sha256) = 0;

  // By name, after `after_name`, at most `limit`.
  virtual absl::StatusOr<std::vector<v1::Artifact>> ListArtifacts(
      absl::string_view job_id, absl::string_view after_name, int limit) = 0;

  // Digests that some job or artifact needs; what is not here may go.
  virtual absl::StatusOr<std::set<std::string>> ReferencedBlobs() = 0;
};

// One writer: the store thread.
class JobStore : public JobReader {
 public:
  virtual absl::StatusOr<Snapshot> Load() = 0;

  // All of it or nothing, and durable when it returns OK.
  //
  //   RESOURCE_EXHAUSTED   the disk is full; nothing was stored.
  //   FAILED_PRECONDITION  another coordinator has taken the store.
  virtual absl::Status Commit(std::span<const Decision> batch) = 0;

  // Forgets replies older than `before`.
  virtual absl::Status PruneReplies(absl::Time before) = 0;

  // Bytes that may still be written.
  virtual absl::StatusOr<int64_t> FreeBytes() = 0;
};

}  // namespace ft
