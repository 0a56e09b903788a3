// SPDX-License-Identifier: Apache-2.0
//
// Leases: which attempt may act for a job.
//
// The epoch of a lease is the fencing token: every write of the attempt carries
// it, and a write with an old one is refused, so a gang that was only slow
// cannot spoil its successor's work. A lease has no clock of its own: it ends
// when the coordinator ends it, and the fleet's timers say when to.
// See docs/life_of_a_job.md, "Lease".

#pragma once

#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ft {

// Not thread-safe: the core thread owns it.
//
// Invariants:
//   1. A job has at most one lease.
//   2. Epochs grow strictly, also over restarts of the coordinator.
class LeaseTable {
 public:
  // `last_epoch` is the highest epoch granted before a restart, from the job
  // store.
  explicit LeaseTable(uint64_t last_epoch) : last_epoch_(last_epoch) {}

  // Leases `job_id` under a new epoch, which must be durable before any worker
  // learns of it. REQUIRES: the job has no lease.
  uint64_t Grant(absl::string_view job_id);

  // Takes over a lease that was granted before a restart.
  // REQUIRES: the job has no lease, epoch <= last_epoch()
  void Adopt(absl::string_view job_id, uint64_t epoch);

  // Ends the job's lease, if it has one.
  void End(absl::string_view job_id);

  // OK: `epoch` is the job's lease.
  // ABORTED(STALE_EPOCH): it is not. The gang must stop its ranks and publish
  // nothing more.
  absl::Status Check(absl::string_view job_id, uint64_t epoch) const;

  // The job that `epoch` acts for; empty: none, it is fenced.
  std::string JobOf(uint64_t epoch) const;

  // The epoch that acts for the job; 0: none.
  uint64_t EpochOf(absl::string_view job_id) const;

  uint64_t last_epoch() const { return last_epoch_; }

 private:
  uint64_t last_epoch_;
  absl::flat_hash_map<std::string, uint64_t> epoch_of_;
  absl::flat_hash_map<uint64_t, std::string> job_of_;
};

}  // namespace ft
