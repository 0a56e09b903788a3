// SPDX-License-Identifier: Apache-2.0
//
// The coordinator's state in one SQLite file: WAL, synchronous FULL, one
// writer. A flock keeps a second coordinator out; should that fail, the
// incarnation that every transaction checks stops the one that came first.

#pragma once

#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"
#include "common/file.h"
#include "coordinator/job_store.h"
#include "coordinator/sqlite_db.h"

namespace ft {

// Reads are thread-safe; Load, Commit and PruneReplies are for one thread.
class SqliteJobStore : public JobStore {
 public:
  struct Options {
    // The most the file may grow to, in pages of 4 KiB. 0: the disk's end.
    int64_t max_pages = 0;
  };

  // Opens or makes `dir`/ft.db, brings its schema up to date and takes it over
  // under a new incarnation.
  //
  //   FAILED_PRECONDITION  another coordinator holds it, or the schema is newer
  //                        than this program.
  static absl::StatusOr<std::unique_ptr<SqliteJobStore>> Open(
      const std::string& dir, Options options);
  static absl::StatusOr<std::unique_ptr<SqliteJobStore>> Open(
      const std::string& dir) {
    return Open(dir, Options());
  }

  absl::StatusOr<Snapshot> Load() override;
  absl::Status Commit(std::span<const Decision> batch) override;
  absl::Status PruneReplies(absl::Time before) override;
  absl::StatusOr<int64_t> FreeBytes() override;

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

  int64_t incarnation() const { return incarnation_; }

 private:
  SqliteJobStore(std::string dir, UniqueFd lock)
      : dir_(std::move(dir)), lock_(std::move(lock)) {}

  absl::Status TakeOver();
  absl::Status LoadJobs(Snapshot& snapshot);
  absl::Status LoadArtifacts(Snapshot& snapshot);
  absl::Status LoadWorkers(Snapshot& snapshot);
  absl::Status CheckIncarnation();
  absl::Status WriteBatch(std::span<const Decision> batch);
  absl::Status Write(const PutJob& put);
  absl::Status Write(const EraseJob& erase);
  absl::Status Write(const PutAttempt& put);
  absl::Status Write(const AppendEvent& append);
  absl::Status Write(const PutReply& put);
  absl::Status Write(const PutLastEpoch& put);
  absl::Status Write(const PutSpoolMark& put);
  absl::Status Write(const PutArtifact& put);
  absl::Status Write(const EraseArtifact& erase);
  absl::Status Write(const PutWorker& put);
  absl::Status Write(const AppendAudit& append);

  const std::string dir_;
  UniqueFd lock_;  // Held with flock while this lives.
  int64_t incarnation_ = 0;
  std::unique_ptr<SqliteDb> writer_;

  absl::Mutex mutex_;
  std::unique_ptr<SqliteDb> reader_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ft
