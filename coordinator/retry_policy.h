// SPDX-License-Identifier: Apache-2.0
//
// What follows the end of an attempt: one table over what it ended with. The
// cause decides first, then the status code that the rank ended with.
// See docs/operations.md.

#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ft/v1/jobs.pb.h"

namespace ft {

enum class RetryAction {
  kRetry,           // At once, the old slots will do.
  kRetryLater,      // After a jittered back-off.
  kRetryElsewhere,  // At once, on another worker if one fits.
  kRetryEarlier,    // From the checkpoint before the newest.
  kFail,            // The job ends FAILED with the cause's name.
  kHold,            // The job is HELD: POISON or NO_PROGRESS.
};

// How an attempt ended: what its first failing rank said.
struct AttemptOutcome {
  v1::AttemptCause cause = v1::ATTEMPT_CAUSE_UNSPECIFIED;
  int status_code = 0;  // absl::StatusCode; 0: the rank said none.
  int signal = 0;
  std::string worker_id;
  int64_t last_step = 0;
};

// Of an attempt that has ended.
AttemptOutcome OutcomeOf(const v1::Attempt& attempt);

// What the policy must know of the job.
struct RetryHistory {
  // Earlier attempts since the last resume, oldest first.
  std::vector<AttemptOutcome> earlier = {};

  // Attempts in a row without a later durable step, this one included.
  int without_progress = 0;
  int max_without_progress = 3;
};

struct RetryVerdict {
  RetryAction action = RetryAction::kFail;
  absl::Duration wait = absl::ZeroDuration();

  // For status.reason of a job that ends or is held: a cause's name, POISON,
  // NO_PROGRESS.
  std::string reason = {};

  // For people, of a job that is held: why.
  std::string why = {};
};

// Whether the program itself crashed: the same one again is poison, and one
// that does not come again elsewhere is the worker's.
bool IsCrash(const AttemptOutcome& outcome);

// A pure function; the jitter of the wait is a hash of (job_id, epoch), so that
// a simulation repeats it.
RetryVerdict JudgeAttempt(const AttemptOutcome& outcome,
                          const RetryHistory& history, absl::string_view job_id,
                          uint64_t epoch);

// Which of two ends of one gang's workers names the attempt: the one that says
// more about the first fault. A peer's death (ABORTED) and STOPPED are only its
// echo.
bool IsMoreTelling(const AttemptOutcome& a, const AttemptOutcome& b);

}  // namespace ft
