// SPDX-License-Identifier: Apache-2.0
//
// Local snapshots: which workers hold what of them, and from where the next
// attempt goes on.

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "coordinator/core.h"

namespace ft {

// The steps of which every rank's worker holds that rank's shard, all made by
// one attempt, the newest first.
std::vector<int64_t> Core::SnapshotsOn(const std::string& job_id,
                                       const v1::Placement& placement) const {
  // Ranks that have a shard, by (step, epoch).
  std::map<std::pair<int64_t, uint64_t>, std::set<int32_t>, std::greater<>>
      ranks;
  for (const v1::RankPlacement& place : placement.ranks()) {
    const FleetWorker* worker = fleet_.Find(place.worker_id());
    if (worker == nullptr) return {};
    const auto held = worker->snapshots.find(job_id);
    if (held == worker->snapshots.end()) return {};
    for (const v1::SnapshotShard& shard : held->second) {
      if (shard.step() <= 0 || shard.rank() != place.rank()) continue;
      ranks[{shard.step(), shard.epoch()}].insert(place.rank());
    }
  }
  std::vector<int64_t> steps;
  for (const auto& [key, holders] : ranks) {
    const int64_t step = key.first;
    if (std::cmp_equal(holders.size(), placement.ranks_size()) &&
        (steps.empty() || steps.back() != step)) {
      steps.push_back(step);
    }
  }
  return steps;
}

// Whether the job may go on from what this worker holds of it.
bool Core::WantsSnapshots(const std::string& job_id,
                          const std::string& worker_id) const {
  const auto entry = live_.find(job_id);
  if (entry == live_.end()) return false;
  const v1::JobStatus& status = entry->second.job.status();
  // A job that waits without slots may go on anywhere.
  const bool has_left = status.state() == v1::JOB_STATE_QUEUED ||
                        status.state() == v1::JOB_STATE_HELD ||
                        status.state() == v1::JOB_STATE_PAUSED;
  if (has_left || status.attempts().empty()) return false;
  const auto& ranks = status.attempts().rbegin()->placement().ranks();
  return std::ranges::any_of(ranks, [&](const v1::RankPlacement& place) {
    return place.worker_id() == worker_id;
  });
}

// The newest local snapshot that lies on the placement; else the newest durable
// checkpoint. After DATA_LOSS, what comes after that.
void Core::ChooseSource(LiveJob& live, v1::Attempt& attempt) {
  const v1::JobStatus& status = live.job.status();
  attempt.set_source_manifest_sha256(status.checkpoint_manifest_sha256());
  attempt.set_source_step(status.checkpoint_step());
  const std::string& job_id = live.job.job_id();
  if (!std::exchange(live.skip_newest_checkpoint, false)) {
    for (const int64_t step : SnapshotsOn(job_id, attempt.placement())) {
      if (step <= status.checkpoint_step()) break;
      // A worker may have died with what its ranks had said of a step, which
      // nobody would take again.
      if (step > live.reported_step) continue;
      attempt.add_source_snapshot_steps(step);
    }
    if (attempt.source_snapshot_steps().empty()) return;
    attempt.clear_source_manifest_sha256();
    attempt.set_source_step(attempt.source_snapshot_steps(0));
    return;
  }
  // `attempt` is the last of the job's.
  const int before_it = status.attempts_size() - 2;
  if (before_it >= 0 &&
      !status.attempts(before_it).source_snapshot_steps().empty()) {
    return;  // It was the snapshots that had rotted.
  }
  attempt.clear_source_manifest_sha256();
  attempt.clear_source_step();
  const std::vector<std::string> names = CheckpointsOf(job_id);
  if (names.size() < 2) return;
  const KnownArtifact& before = artifacts_.at(names[names.size() - 2]);
  attempt.set_source_manifest_sha256(before.manifest_sha256);
  attempt.set_source_step(before.step);
}

}  // namespace ft
