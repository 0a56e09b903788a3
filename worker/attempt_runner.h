// SPDX-License-Identifier: Apache-2.0
//
// An attempt at this worker: from the order to its end. Its thread prepares the
// inputs, starts the ranks here, relays what they say, stores checkpoints, and
// publishes the result when the coordinator says so.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "artifact/transfer.h"
#include "common/disk_reserve.h"
#include "ft/v1/workers.pb.h"
#include "worker/checkpoint_uploader.h"
#include "worker/config.h"
#include "worker/inputs.h"
#include "worker/rank_link.h"
#include "worker/snapshot_store.h"
#include "worker/warm_ranks.h"

namespace ft {

// What an attempt needs of its daemon. All must outlive it; thread-safe.
struct AttemptHost {
  const WorkerConfig* config = nullptr;
  RankSpawner* spawner = nullptr;
  ArtifactTransfer* transfer = nullptr;
  InputCache* inputs = nullptr;
  WarmRanks* warm_ranks = nullptr;  // Null: ranks start cold.
  DiskReserve* reserve = nullptr;
  const SnapshotStore* snapshots = nullptr;  // Null: none are taken.
  // Path and digest of a model under the model root.
  std::function<absl::StatusOr<std::pair<std::string, std::string>>(
      const std::string& name)>
      find_model;
  std::function<void(const v1::AttemptUpdate&)> update;
  std::function<void(const v1::Event&, const v1::StepMetrics*)> event;
  std::function<void(const v1::StepMetrics&)> step;
  std::function<void(const v1::LogLine&)> log;
  // Returns when the coordinator has the events, steps and lines said before;
  // false: it does not answer.
  std::function<bool()> flush;
  std::function<void(const v1::ConnectRequest&)> send;
  // Kills for memory that nobody has asked about.
  std::function<int()> take_oom_kills;
};

class AttemptRunner {
 public:
  AttemptRunner(v1::StartAttempt order, AttemptHost host);
  // Stops it and waits.
  ~AttemptRunner();

  uint64_t epoch() const { return order_.epoch(); }
  const std::string& job_id() const { return order_.job_id(); }
  v1::AttemptState state() const;
  int64_t step() const;
  bool is_over() const;

  // Orders; each is idempotent.
  void OpenBarrier();
  void Yield(absl::Duration grace);
  // `is_fenced`: the epoch is no longer the job's; nothing more is said.
  void Stop(bool is_fenced);
  void Publish(const std::string& artifact_name);
  void OnRendezvous(const v1::RendezvousReply& reply);
  // What ranks here have asked and no answer came to; a coordinator that was
  // restarted must be asked again.
  std::vector<v1::ConnectRequest> OpenQuestions() const;

 private:
  void Run();
  absl::Status Prepare();
  absl::Status StartRanks();
  absl::Status StartRank(int rank, const UniqueFd& shared_memory);
  UniqueFd SharedMemory();
  void WaitForRanks();
  void End();
  std::unique_ptr<CheckpointUploader> NewUploader();
  absl::Status CommitCheckpoint(v1::Manifest manifest);
  absl::Status PublishExport();
  void OnMessage(int rank, const v1::FromRank& message);
  void OnRankEnd(RankEnding ending);
  void SendToAll(const v1::ToRank& message);
  void KillAll();
  v1::ConnectRequest Question(int rank, const std::string& key) const;
  void SayEnded(v1::AttemptEnded ended);
  void Warn(const std::string& message);
  bool NoteSpace(const absl::Status& status);
  void OnSpaceOfRank(int rank, const v1::Event& event);
  void TellSpace(absl::string_view why_not)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(space_mutex_);
  v1::AttemptUpdate NewUpdate() const;
  WriterIdentity Writer() const { return {job_id(), epoch()}; }
  bool Stopping() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits, and says whether it was stopped meanwhile.
  bool StopsWithin(absl::Duration wait) const ABSL_LOCKS_EXCLUDED(mutex_);

  const v1::StartAttempt order_;
  const AttemptHost host_;
  const std::string dir_;
  std::vector<int> local_ranks_;
  v1::RankStart start_;  // Without rank and workspace.

  mutable absl::Mutex mutex_;
  std::map<int, std::unique_ptr<RankLink>> links_ ABSL_GUARDED_BY(mutex_);
  std::vector<RankEnding> endings_ ABSL_GUARDED_BY(mutex_);  // By time.
  v1::AttemptState state_ ABSL_GUARDED_BY(mutex_) = v1::ATTEMPT_STATE_STARTING;
  int64_t step_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time heard_at_ ABSL_GUARDED_BY(mutex_);
  double longest_step_seconds_ ABSL_GUARDED_BY(mutex_) = 0;
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool fenced_ ABSL_GUARDED_BY(mutex_) = false;
  bool hung_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time yield_deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  std::optional<std::string> publish_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::ExportFiles> export_ ABSL_GUARDED_BY(mutex_);
  // Keys asked for by our ranks, until they are there.
  std::map<std::string, std::set<int>> asked_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;

  // Held while space is told of, so that what is told last is true.
  absl::Mutex space_mutex_;
  // Who has met a full disk: we ourselves, and ranks here; and what was told.
  bool meets_full_disk_ ABSL_GUARDED_BY(space_mutex_) = false;
  std::set<int> ranks_at_full_disk_ ABSL_GUARDED_BY(space_mutex_);
  bool told_no_space_ ABSL_GUARDED_BY(space_mutex_) = false;

  const std::unique_ptr<CheckpointUploader> checkpoints_;
  std::thread thread_;
};

}  // namespace ft
