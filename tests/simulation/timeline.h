// SPDX-License-Identifier: Apache-2.0
//
// The event log, replayed: from events alone the rows of a job and its attempts
// are built again, and compared with what the store has.

#pragma once

#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "ft/v1/events.pb.h"
#include "ft/v1/jobs.pb.h"

namespace ft::testing {

// The timeline of one job.
class Timeline {
 public:
  // An attempt, and what the rules about its end look at.
  struct Attempt {
    v1::Attempt row;
    // Its end counted for or against the job: it did not yield.
    bool counted = false;
    bool had_progress = false;
  };

  // Takes the next event. Returns what is wrong with it; empty: nothing.
  std::string Apply(const v1::Event& event);

  // How the row differs from what the events say; empty: not at all. Left out:
  // points of progress and evaluation, which are keyed by (job, step), the
  // text of exit reports, and the view of the queue.
  std::string Differs(v1::Job row) const;

  // What the retry policy must have done with the newest attempt, when the
  // state left STARTING, RUNNING or FINALIZING for `to`. Empty: it did.
  std::string JudgesOtherwise(v1::JobState to, const std::string& reason,
                              int max_without_progress) const;

  const v1::JobStatus& status() const { return status_; }
  const std::vector<Attempt>& attempts() const { return attempts_; }
  const std::set<std::string>& artifacts() const { return artifacts_; }
  // Ends that no resume took back.
  int ends() const { return ends_; }
  int resumed_ends() const { return resumed_ends_; }

 private:
  std::string OnState(const v1::Event& event);
  void OnStarted(const v1::Event& event);
  void OnEnded(const v1::Event& event);
  void OnCheckpoint(const v1::Event& event);

  int64_t seq_ = 0;
  v1::JobStatus status_;  // Without attempts.
  std::string model_digest_;
  std::vector<Attempt> attempts_;
  std::set<std::string> checkpoints_;  // Their names sort by step.
  std::set<std::string> artifacts_;
  int ends_ = 0;
  int resumed_ends_ = 0;
};

// A crash of the program, by the table of docs/operations.md.
bool IsCrashRow(const v1::Attempt& attempt);

}  // namespace ft::testing
