// SPDX-License-Identifier: Apache-2.0

#include "coordinator/fleet.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/proto_time.h"
#include "coordinator/reasons.h"

namespace ft {

Fleet::Fleet(const Timers& timers, absl::Time judge_from)
    : timers_(timers), judge_from_(judge_from) {}

absl::StatusOr<Fleet::Attachment> Fleet::Attach(uint64_t session,
                                                const v1::Attach& attach,
                                                absl::Time now,
                                                absl::Time wall) {
  FleetWorker& worker = workers_[attach.worker_id()];
  const bool same = worker.instance_id == attach.instance_id();
  if (worker.session != 0 && !same) {
    return ReasonError(
        absl::StatusCode::kAlreadyExists, v1::REASON_DUPLICATE_WORKER,
        absl::StrCat("a live worker is called ", attach.worker_id(),
                     "; give this one another --worker_id"));
  }
  Attachment attachment;
  attachment.is_new_instance = !same && !worker.instance_id.empty();
  attachment.replaced_session = worker.session;
  worker_of_session_.erase(worker.session);

  worker.worker_id = attach.worker_id();
  worker.instance_id = attach.instance_id();
  worker.version = attach.version();
  worker.session = session;
  if (!same) worker.draining = false;
  worker.inventory = attach.inventory();
  worker.models.assign(attach.models().begin(), attach.models().end());
  worker.last_heard = now;
  worker.last_heartbeat = wall;
  worker_of_session_[session] = worker.worker_id;
  SetStanding(worker, now);
  changed_ = true;
  return attachment;
}

const FleetWorker* Fleet::Detach(uint64_t session, absl::Time now) {
  const auto entry = worker_of_session_.find(session);
  if (entry == worker_of_session_.end()) return nullptr;
  FleetWorker& worker = workers_[entry->second];
  worker_of_session_.erase(entry);
  worker.session = 0;
  worker.broken_since = now;
  SetState(worker, v1::WORKER_STATE_SUSPECT);
  return &worker;
}

FleetWorker* Fleet::Heard(uint64_t session, absl::Time now, absl::Time wall) {
  const auto entry = worker_of_session_.find(session);
  if (entry == worker_of_session_.end()) return nullptr;
  FleetWorker& worker = workers_[entry->second];
  worker.last_heard = now;
  worker.last_heartbeat = wall;
  SetStanding(worker, now);
  return &worker;
}

void Fleet::Expect(const std::string& worker_id, absl::Time now) {
  FleetWorker& worker = workers_[worker_id];
  worker.worker_id = worker_id;
  worker.broken_since = now;
  changed_ = true;
}

void Fleet::SetDraining(const std::string& worker_id, absl::Time now) {
  FleetWorker& worker = workers_[worker_id];
  worker.draining = true;
  SetStanding(worker, now);
}

void Fleet::SetMarks(const std::string& worker_id, const v1::WorkerMarks& marks,
                     absl::Time now) {
  if (!workers_.contains(worker_id)) Expect(worker_id, now);
  FleetWorker& worker = workers_[worker_id];
  worker.marks = marks;
  changed_ = true;
  // A silent one shows it when it is heard again.
  if (worker.session != 0 && (worker.state != v1::WORKER_STATE_SUSPECT ||
                              worker.suspect_until > now)) {
    SetStanding(worker, now);
  }
}

void Fleet::Suspect(const std::string& worker_id, absl::Time until,
                    absl::Time now) {
  const auto entry = workers_.find(worker_id);
  if (entry == workers_.end()) return;
  entry->second.suspect_until = until;
  if (entry->second.state == v1::WORKER_STATE_READY) {
    SetStanding(entry->second, now);
  }
}

void Fleet::SetStanding(FleetWorker& worker, absl::Time now) {
  if (worker.draining) {
    SetState(worker, v1::WORKER_STATE_DRAINING);
  } else if (worker.marks.has_quarantine()) {
    SetState(worker, v1::WORKER_STATE_QUARANTINED);
  } else if (now < worker.suspect_until) {
    SetState(worker, v1::WORKER_STATE_SUSPECT);
  } else {
    SetState(worker, v1::WORKER_STATE_READY);
  }
}

std::vector<Fleet::Loss> Fleet::Judge(absl::Time now) {
  std::vector<Loss> losses;
  if (now < judge_from_) return losses;
  for (auto& [worker_id, worker] : workers_) {
    if (worker.state == v1::WORKER_STATE_LOST) continue;
    if (worker.session == 0) {
      const absl::Duration gone = now - worker.broken_since;
      if (gone < timers_.reattach_grace) continue;
      // A stream that broke under our eyes is a crash; one that never came
      // back after our own start may be anything.
      losses.push_back({worker_id,
                        worker.instance_id.empty()
                            ? v1::ATTEMPT_CAUSE_WORKER_LOST
                            : v1::ATTEMPT_CAUSE_WORKER_CRASH,
                        gone});
      SetState(worker, v1::WORKER_STATE_LOST);
      worker.used.clear();
      worker.snapshots.clear();
      continue;
    }
    const absl::Duration silent_for = now - worker.last_heard;
    if (silent_for >= timers_.lost_after) {
      losses.push_back({worker_id, v1::ATTEMPT_CAUSE_WORKER_LOST, silent_for,
                        worker.session});
      worker_of_session_.erase(worker.session);
      worker.session = 0;
      worker.broken_since = now;
      SetState(worker, v1::WORKER_STATE_LOST);
      worker.used.clear();
      worker.snapshots.clear();
    } else if (silent_for >= timers_.suspect_after) {
      SetState(worker, v1::WORKER_STATE_SUSPECT);
    }
  }
  return losses;
}

void Fleet::Occupy(const std::string& job_id, uint64_t epoch,
                   const v1::Placement& placement) {
  Release(job_id);
  for (const v1::RankPlacement& rank : placement.ranks()) {
    workers_[rank.worker_id()].used[rank.slot()] =
        SlotUse{job_id, epoch, rank.rank()};
  }
  changed_ = true;
}

void Fleet::Hold(const std::string& job_id) {
  for (auto& [worker_id, worker] : workers_) {
    for (auto& [slot, use] : worker.used) {
      if (use.job_id == job_id) use.epoch = 0;
    }
  }
  changed_ = true;
}

void Fleet::Release(const std::string& job_id) {
  for (auto& [worker_id, worker] : workers_) {
    const auto freed = std::erase_if(worker.used, [&](const auto& entry) {
      return entry.second.job_id == job_id;
    });
    if (freed > 0) replan_ = true;
  }
  changed_ = true;
}

void Fleet::SetSnapshots(const std::string& worker_id,
                         const std::vector<v1::SnapshotShard>& shards) {
  FleetWorker& worker = workers_[worker_id];
  worker.snapshots.clear();
  for (const v1::SnapshotShard& shard : shards) {
    worker.snapshots[shard.job_id()].push_back(shard);
  }
}

void Fleet::SetSnapshots(const std::string& worker_id,
                         const std::string& job_id,
                         std::vector<v1::SnapshotShard> shards) {
  workers_[worker_id].snapshots[job_id] = std::move(shards);
}

const FleetWorker* Fleet::Find(const std::string& worker_id) const {
  const auto entry = workers_.find(worker_id);
  return entry == workers_.end() ? nullptr : &entry->second;
}

bool Fleet::TakeChanged() { return std::exchange(changed_, false); }

bool Fleet::TakeReplan() { return std::exchange(replan_, false); }

void Fleet::SetState(FleetWorker& worker, v1::WorkerState state) {
  if (worker.state == state) return;
  worker.state = state;
  changed_ = true;
  // A READY worker has room; without one that is READY no more, a job that no
  // longer fits anywhere blocks nobody.
  replan_ = true;
}

v1::WorkerInfo ToWorkerInfo(const FleetWorker& worker) {
  v1::WorkerInfo info;
  info.set_worker_id(worker.worker_id);
  info.set_state(worker.state);
  info.set_instance_id(worker.instance_id);
  info.set_version(worker.version);
  *info.mutable_inventory() = worker.inventory;
  for (const v1::ModelInfo& model : worker.models) {
    v1::ModelInfo& shown = *info.add_models();
    shown = model;
    shown.clear_config_json();
  }
  for (const auto& [slot, use] : worker.used) {
    if (use.epoch == 0) continue;
    v1::RunningRank& running = *info.add_running();
    running.set_job_id(use.job_id);
    running.set_epoch(use.epoch);
    running.set_rank(use.rank);
    running.set_slot(slot);
  }
  if (worker.last_heartbeat > absl::UnixEpoch()) {
    *info.mutable_last_heartbeat() = ToProto(worker.last_heartbeat);
  }
  if (worker.marks.ByteSizeLong() > 0) *info.mutable_marks() = worker.marks;
  return info;
}

}  // namespace ft
