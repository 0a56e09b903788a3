// SPDX-License-Identifier: Apache-2.0
//
// ft-worker: orders in, reports out. Holds the attempts of this worker, what
// they said and what of it the coordinator has not acknowledged, so that a
// break of the connection, or a restart of the coordinator, loses nothing.

#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/disk_reserve.h"
#include "common/http_server.h"
#include "common/metrics.h"
#include "jobspec/model_root.h"
#include "worker/attempt_runner.h"
#include "worker/config.h"
#include "worker/coordinator_client.h"
#include "worker/memory_events.h"
#include "worker/snapshot_store.h"
#include "worker/warm_ranks.h"

namespace ft {

class Daemon {
 public:
  // Takes over the data folder and begins to dial. FAILED_PRECONDITION: another
  // daemon holds it.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(WorkerConfig config);
  // Kills what runs.
  ~Daemon();

  const std::string& http_address() const { return http_->address(); }

  // Takes no new attempts, asks those here to yield, and returns when they have
  // left, or after `grace`.
  void Drain(absl::Duration grace);

 private:
  // An attempt and what is to be said of it until the coordinator has it.
  struct Held {
    std::unique_ptr<AttemptRunner> runner;
    std::vector<v1::AttemptUpdate> updates;
    std::vector<v1::RendezvousSet> keys;
    std::deque<v1::WorkerEvent> events;
    int64_t last_event_seq = 0;
    std::deque<v1::ReportRequest> reports;
    int64_t last_report_seq = 0;
    v1::ReportRequest pending;  // Lines and points of the next report.
  };

  // What a heartbeat asked about.
  struct Question {
    int64_t seq = 0;
    std::vector<uint64_t> epochs;
    std::set<std::string> jobs;  // With snapshots here.
  };

  explicit Daemon(WorkerConfig config, std::string token, UniqueFd lock);
  void OpenSnapshots();
  void OnHeartbeatReply(const v1::HeartbeatReply& reply);
  void DropSnapshots(const Question& question, const v1::HeartbeatReply& reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  v1::Attach MakeAttach();
  void OnMessage(const v1::ConnectResponse& message);
  void OnAttached(const v1::Attached& attached);
  void StartAttempt(const v1::StartAttempt& order);
  void Fence(uint64_t epoch);
  AttemptHost HostFor(uint64_t epoch);
  void FlushReports(uint64_t epoch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void HeartbeatLoop();
  void FarewellLoop();
  void TrimCache();
  // Looks at what lies on the disk now and then.
  void DiskLoop();
  void TellNewModels();
  absl::StatusOr<std::pair<std::string, std::string>> FindModel(
      const std::string& name);
  void UpdateMetrics();

  const WorkerConfig config_;
  const std::string token_;
  const UniqueFd lock_;
  const std::string instance_id_;
  MetricRegistry metrics_;
  RankSpawner spawner_;
  MemoryEvents memory_events_;
  DiskReserve reserve_;
  std::unique_ptr<ArtifactTransfer> transfer_;
  std::unique_ptr<InputCache> inputs_;
  std::optional<SnapshotStore> snapshots_;  // Nothing: none are taken.
  std::unique_ptr<WarmRanks> warm_ranks_;   // Null: ranks start cold.
  std::unique_ptr<HttpServer> http_;

  absl::Mutex model_mutex_;
  ModelRoot model_root_ ABSL_GUARDED_BY(model_mutex_);
  std::vector<v1::ModelInfo> models_ ABSL_GUARDED_BY(model_mutex_);

  absl::Mutex mutex_;  // Never held while an attempt is destroyed.
  std::map<uint64_t, Held> attempts_ ABSL_GUARDED_BY(mutex_);
  // Were fenced; the farewell thread waits for their ends.
  std::vector<std::unique_ptr<AttemptRunner>> leaving_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t heartbeat_seq_ ABSL_GUARDED_BY(mutex_) = 0;
  // Heartbeats that were not answered, the newest last.
  std::deque<Question> questions_ ABSL_GUARDED_BY(mutex_);

  // Jobs whose step /metrics has shown.
  std::map<std::string, int64_t> shown_steps_ ABSL_GUARDED_BY(mutex_);

  std::unique_ptr<CoordinatorClient> client_;
  std::thread heartbeat_thread_;
  std::thread farewell_thread_;
  std::thread disk_thread_;
};

}  // namespace ft
