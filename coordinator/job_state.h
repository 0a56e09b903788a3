// SPDX-License-Identifier: Apache-2.0
//
// The life cycle of a job as one table: from, event, to. Whatever is not a row
// is refused, so this file alone says what can happen to a job. The guards
// (has every rank reported, does the policy retry) are the core's.
// See docs/life_of_a_job.md.

#pragma once

#include <span>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ft/v1/jobs.pb.h"

namespace ft {

// What can happen to a job.
enum class JobEvent {
  kSubmit,
  kPlace,              // The gang fits; a new epoch was taken.
  kRanksReady,         // Every rank of the epoch waits at the barrier.
  kAttemptEndedRetry,  // No rank is alive, and the policy tries again.
  kAttemptEndedFail,   // No rank is alive, and the policy gives up.
  kAttemptEndedHold,   // No rank is alive, and a person must look.
  kHoldExpired,        // A RECOVERING job waited too long for its old slots.
  kDrain,              // A worker of the gang wants to leave.
  kGraceOver,          // The gang did not yield in time.
  kRanksDone,          // Every rank took the last step.
  kPublished,          // The result is committed.
  kCancel,
  kResume,  // A person has looked.
  kDelete,
};

struct Transition {
  v1::JobState from;  // UNSPECIFIED: the job does not exist yet.
  JobEvent event;
  v1::JobState to;  // UNSPECIFIED: the job no longer exists.
};

// Every row of the table.
std::span<const Transition> JobTransitions();

// Where `event` takes a job that is in `from`.
// FAILED_PRECONDITION: no row. The reason is JOB_ENDED for ended jobs, JOB_LIVE
// for Delete of a live one, else WRONG_STATE.
absl::StatusOr<v1::JobState> NextJobState(v1::JobState from, JobEvent event);

// SUCCEEDED, FAILED and CANCELLED.
bool IsTerminal(v1::JobState state);

// "RUNNING"; a number for values of a newer program.
absl::string_view ShortName(v1::JobState state);
absl::string_view ShortName(v1::AttemptCause cause);
absl::string_view ShortName(v1::AttemptState state);
absl::string_view ShortName(JobEvent event);

}  // namespace ft
