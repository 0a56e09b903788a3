// SPDX-License-Identifier: Apache-2.0
//
// Takes the released effects to whom they concern: replies to waiting callers,
// orders to workers' streams, news to watchers, counts to metrics. It also
// keeps the committed views that readers ask for.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/committer.h"
#include "coordinator/event_bus.h"
#include "coordinator/metrics.h"
#include "coordinator/run_records.h"

namespace ft {

// The way down to one attached worker. Thread-safe, never blocks.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  virtual void Send(v1::ConnectResponse message) = 0;
  virtual void Close(const absl::Status& status) = 0;
};

// Thread-safe.
class EffectRouter : public EffectSink {
 public:
  using OnReply = std::function<void(const Reply&)>;

  // `on_fatal` ends the process. All must outlive this.
  EffectRouter(EventBus& bus, CoordinatorMetrics& metrics,
               std::function<void(const absl::Status&)> on_fatal)
      : bus_(bus), metrics_(metrics), on_fatal_(std::move(on_fatal)) {}

  // A ticket whose Reply goes to `on_reply`, once, from the store thread.
  uint64_t Expect(OnReply on_reply);

  // A session of a worker's stream; until RemoveLink it gets its orders.
  uint64_t AddLink(std::shared_ptr<WorkerLink> link);
  void RemoveLink(uint64_t session);
  std::vector<std::shared_ptr<WorkerLink>> Links() const;

  // Views of what is committed.
  uint64_t EpochOf(const std::string& job_id) const;
  // Those that have not ended.
  std::vector<std::string> LiveJobs() const;
  std::vector<v1::WorkerInfo> Workers() const;
  // Puts waiting_for and jobs_ahead into the status of a waiting job.
  void Explain(v1::Job& job) const;
  // Jobs that live, by state and queue.
  std::map<std::pair<v1::JobState, std::string>, int> CountJobs() const;
  std::map<std::string, int> CountWaiting() const;

  // Called for each job that is deleted or has ended, on the store thread.
  void OnJobOver(std::function<void(const std::string&, bool deleted)> call) {
    on_job_over_ = std::move(call);
  }

  void Release(Effect effect) override;
  void Committed(absl::Duration took, size_t decisions) override;
  void Fatal(const absl::Status& error) override { on_fatal_(error); }

 private:
  struct LiveJob {
    v1::JobState state;
    std::string queue;
  };

  void On(Reply& reply);
  void On(ToWorker& order);
  void On(CloseSession& close);
  void On(EventHappened& happened);
  void On(JobChanged& changed);
  void On(JobDeleted& deleted);
  void On(LeaseChanged& changed);
  void On(FleetChanged& changed);
  void On(WaitingChanged& changed);
  void On(Observation& observation);

  EventBus& bus_;
  CoordinatorMetrics& metrics_;
  const std::function<void(const absl::Status&)> on_fatal_;
  std::function<void(const std::string&, bool)> on_job_over_ =
      [](const std::string&, bool) {};

  mutable absl::Mutex mutex_;  // Never held while calling out.
  uint64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<uint64_t, OnReply> replies_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, std::shared_ptr<WorkerLink>> links_
      ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, uint64_t> epochs_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, LiveJob> live_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const std::vector<v1::WorkerInfo>> workers_
      ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const std::vector<Waiting>> plan_ ABSL_GUARDED_BY(mutex_);
  // By job; keys and values lie in plan_.
  absl::flat_hash_map<absl::string_view, const Waiting*> waiting_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace ft
