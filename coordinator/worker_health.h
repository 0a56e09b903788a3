// SPDX-License-Identifier: Apache-2.0
//
// Which workers are at fault. A crash alone blames nobody: only a job that
// crashed at a worker and then got further without it does, so a job that
// crashes everywhere (poison) never does. Three such jobs within an hour put
// the worker into quarantine, until somebody releases it. Two hangs within an
// hour keep new attempts away from it for a while.
// See docs/operations.md.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/decision.h"
#include "ft/v1/admin.pb.h"

namespace ft {

// Not thread-safe: the core thread owns it. Times are of the wall clock: what
// is held against a worker outlives the coordinator.
class WorkerHealth {
 public:
  static constexpr int kJobsToQuarantine = 3;
  static constexpr int kHangsToSuspect = 2;
  static constexpr absl::Duration kWindow = absl::Hours(1);

  // Goes on from what is durable.
  void Install(const std::vector<Snapshot::Worker>& rows);

  // Whether the end of an attempt at `at` may still be held against the worker.
  bool Counts(const std::string& worker_id, absl::Time at,
              absl::Time now) const;
  // Whether the job is among the blames.
  bool Knows(const std::string& worker_id, const std::string& job_id) const;

  // A job crashed at the worker and got further without it. Returns whether
  // this put the worker into quarantine. REQUIRES: Counts and not Knows.
  bool Accuse(const std::string& worker_id, const v1::Blame& blame,
              absl::Time now);

  // Ends the quarantine and forgets what is held against the worker.
  void Release(const std::string& worker_id, absl::Time now);

  // A gang hung because of this worker. Returns whether that is once too often.
  bool Hang(const std::string& worker_id, absl::Time now);

  // What is held against the worker; empty: nothing.
  const v1::WorkerMarks& MarksOf(const std::string& worker_id) const;
  const std::map<std::string, v1::WorkerMarks>& marks() const { return marks_; }

 private:
  std::map<std::string, v1::WorkerMarks> marks_;
  std::map<std::string, std::vector<absl::Time>> hangs_;  // Not durable.
};

}  // namespace ft
