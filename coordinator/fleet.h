// SPDX-License-Identifier: Apache-2.0
//
// The workers: who is attached, since when we have heard nothing, and what lies
// in each slot. A worker is JOINING until it attaches again after a restart of
// the coordinator, READY while its heartbeats come, SUSPECT when they are late
// or gangs hung at it (no placements, attempts go on), DRAINING when it asked
// to leave, QUARANTINED when too many jobs crashed at it, and LOST.

#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/timers.h"
#include "ft/v1/admin.pb.h"
#include "ft/v1/jobs.pb.h"
#include "ft/v1/workers.pb.h"

namespace ft {

// What lies in a slot. A hold keeps the slot for a RECOVERING job: epoch 0.
struct SlotUse {
  std::string job_id;
  uint64_t epoch = 0;
  int32_t rank = 0;
};

struct FleetWorker {
  std::string worker_id;
  std::string instance_id;  // Empty: not attached since our start.
  std::string version;
  v1::WorkerState state = v1::WORKER_STATE_JOINING;
  uint64_t session = 0;  // 0: no stream.
  bool draining = false;
  v1::Inventory inventory;
  std::vector<v1::ModelInfo> models;
  std::map<int32_t, SlotUse> used;
  // Shards of local snapshots it holds, by job.
  std::map<std::string, std::vector<v1::SnapshotShard>> snapshots;
  v1::WorkerMarks marks;  // What is held against it.

  absl::Time suspect_until;   // Observed clock.
  absl::Time last_heard;      // Observed clock.
  absl::Time broken_since;    // Observed clock; while session == 0.
  absl::Time last_heartbeat;  // Wall clock, for people.
};

// Not thread-safe: the core thread owns it. `now` is the observed clock.
class Fleet {
 public:
  // Nobody is judged before `judge_from`.
  Fleet(const Timers& timers, absl::Time judge_from);

  struct Attachment {
    // The daemon is another process than before: what it held is gone.
    bool is_new_instance = false;

    // The stream of the same instance that this one replaces; 0: none.
    uint64_t replaced_session = 0;
  };

  // ALREADY_EXISTS(DUPLICATE_WORKER): another instance is attached and alive.
  absl::StatusOr<Attachment> Attach(uint64_t session, const v1::Attach& attach,
                                    absl::Time now, absl::Time wall);

  // The stream is gone. Returns the worker, or null if it has another by now.
  const FleetWorker* Detach(uint64_t session, absl::Time now);

  // A message came. Returns the worker, or null for a session that was
  // replaced.
  FleetWorker* Heard(uint64_t session, absl::Time now, absl::Time wall);

  // A worker that a live attempt names, after our start: it has until
  // `judge_from` to attach.
  void Expect(const std::string& worker_id, absl::Time now);

  void SetDraining(const std::string& worker_id, absl::Time now);

  // What is held against the worker decides whether it is in quarantine.
  void SetMarks(const std::string& worker_id, const v1::WorkerMarks& marks,
                absl::Time now);
  // No placements before `until`.
  void Suspect(const std::string& worker_id, absl::Time until, absl::Time now);

  struct Loss {
    std::string worker_id;
    v1::AttemptCause cause;  // WORKER_CRASH or WORKER_LOST.
    absl::Duration silent_for;
    uint64_t session = 0;  // To be closed; 0: none.
  };

  // Applies the timers and returns whom they have taken.
  std::vector<Loss> Judge(absl::Time now);

  // Slots. Marks the slots of a gang as used by `epoch`.
  void Occupy(const std::string& job_id, uint64_t epoch,
              const v1::Placement& placement);
  // Keeps the job's slots for it, without an epoch.
  void Hold(const std::string& job_id);
  void Release(const std::string& job_id);

  // Replaces what is known of the local snapshots of a worker: of all jobs, or
  // of one.
  void SetSnapshots(const std::string& worker_id,
                    const std::vector<v1::SnapshotShard>& shards);
  void SetSnapshots(const std::string& worker_id, const std::string& job_id,
                    std::vector<v1::SnapshotShard> shards);

  const FleetWorker* Find(const std::string& worker_id) const;
  const std::map<std::string, FleetWorker>& workers() const { return workers_; }

  // What a worker offers was changed from outside.
  void MarkChanged() { changed_ = true; }

  // Whether something that WorkerInfo shows has changed since the last call.
  bool TakeChanged();

  // Whether slots became free, or READY workers others, since the last call.
  bool TakeReplan();

 private:
  void SetState(FleetWorker& worker, v1::WorkerState state);
  // The state of an attached worker that is not silent.
  void SetStanding(FleetWorker& worker, absl::Time now);

  const Timers timers_;
  const absl::Time judge_from_;
  bool changed_ = false;
  bool replan_ = false;
  std::map<std::string, FleetWorker> workers_;
  absl::flat_hash_map<uint64_t, std::string> worker_of_session_;
};

// As AdminService shows it.
v1::WorkerInfo ToWorkerInfo(const FleetWorker& worker);

}  // namespace ft
