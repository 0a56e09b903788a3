// SPDX-License-Identifier: Apache-2.0
//
// Local snapshots: after each step a rank copies its shard of the training
// state into its ring (artifact/snapshot_ring.h), so that a rank's death costs
// the gang at most one step. Everything a checkpoint has is in it.
//
// The step waits for the copy alone: 12 bytes a trainable parameter, divided by
// the ranks. A thread of its own then hashes the whole payload (SHA-256) and
// seals it, beside the next step. A slot is overwritten only when every rank
// has sealed the snapshot before, which travels with the step's losses; so
// whenever a gang dies there is a step that all its ranks hold, and a rank
// whose hash is late makes all of them skip, never wait.
//
//   payload   int64 size of the info | info (checkpoint.h, JSON) | floats
//             (sharding/zero.h, CopyShard) from byte kInfoBytes on

#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "artifact/snapshot_ring.h"
#include "sharding/zero.h"
#include "train/checkpoint.h"
#include "train/job.h"
#include "train/link.h"

namespace ft {

// Not thread-safe.
class Snapshotter {
 public:
  // Opens the ring of the job, for what `optimizer` holds. `link` must outlive
  // it. RESOURCE_EXHAUSTED: there is no room; the message says how much is
  // wanted and what to do. UNAVAILABLE: an older rank still holds the ring.
  static absl::StatusOr<std::unique_ptr<Snapshotter>> Open(
      const RankJob& job, const ShardedOptimizer& optimizer, Link& link);
  // Waits for the thread.
  ~Snapshotter();

  // What the ring says of a step, its digest checked. NOT_FOUND, DATA_LOSS: the
  // step cannot be used.
  absl::StatusOr<CheckpointInfo> Read(int64_t step) const;

  // Fills the optimizer from a step that every rank has Read. Collective.
  absl::Status Restore(int64_t step, ShardedOptimizer& optimizer);

  // Forgets every snapshot: the run begins elsewhere.
  void Clear();

  // Copies the state and returns; it is sealed soon after.
  // REQUIRES: sealed_step() == taken_step()
  void Take(const CheckpointInfo& info, const ShardedOptimizer& optimizer);

  // The newest step that was copied, and that was sealed; 0: none.
  int64_t taken_step() const { return taken_step_; }
  int64_t sealed_step() const { return sealed_step_.load(); }

 private:
  Snapshotter(const RankJob& job, std::unique_ptr<SnapshotRing> ring,
              Link& link);
  void SealLoop();

  const RankJob& job_;
  Link& link_;
  const std::unique_ptr<SnapshotRing> ring_;
  int64_t taken_step_ = 0;
  std::atomic<int64_t> sealed_step_ = 0;

  absl::Mutex mutex_;  // Never held while hashing.
  int64_t to_seal_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ft
