// SPDX-License-Identifier: Apache-2.0

#include "coordinator/job_state.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "coordinator/reasons.h"

namespace ft {
namespace {

using enum JobEvent;
using v1::JOB_STATE_CANCELLED;
using v1::JOB_STATE_CANCELLING;
using v1::JOB_STATE_FAILED;
using v1::JOB_STATE_FINALIZING;
using v1::JOB_STATE_HELD;
using v1::JOB_STATE_QUEUED;
using v1::JOB_STATE_RECOVERING;
using v1::JOB_STATE_RUNNING;
using v1::JOB_STATE_STARTING;
using v1::JOB_STATE_SUCCEEDED;
using v1::JOB_STATE_UNSPECIFIED;
using v1::JOB_STATE_YIELDING;

constexpr Transition kTransitions[] = {
    {JOB_STATE_UNSPECIFIED, kSubmit, JOB_STATE_QUEUED},

    {JOB_STATE_QUEUED, kPlace, JOB_STATE_STARTING},
    {JOB_STATE_QUEUED, kCancel, JOB_STATE_CANCELLED},

    {JOB_STATE_STARTING, kRanksReady, JOB_STATE_RUNNING},
    {JOB_STATE_STARTING, kAttemptEndedRetry, JOB_STATE_RECOVERING},
    {JOB_STATE_STARTING, kAttemptEndedFail, JOB_STATE_FAILED},
    {JOB_STATE_STARTING, kAttemptEndedHold, JOB_STATE_HELD},
    {JOB_STATE_STARTING, kDrain, JOB_STATE_YIELDING},
    {JOB_STATE_STARTING, kCancel, JOB_STATE_CANCELLING},

    {JOB_STATE_RUNNING, kRanksDone, JOB_STATE_FINALIZING},
    {JOB_STATE_RUNNING, kAttemptEndedRetry, JOB_STATE_RECOVERING},
    {JOB_STATE_RUNNING, kAttemptEndedFail, JOB_STATE_FAILED},
    {JOB_STATE_RUNNING, kAttemptEndedHold, JOB_STATE_HELD},
    {JOB_STATE_RUNNING, kDrain, JOB_STATE_YIELDING},
    {JOB_STATE_RUNNING, kCancel, JOB_STATE_CANCELLING},

    // However a yielding gang ends, the job waits its turn again: whoever asked
    // for the yield is the cause, not the job.
    {JOB_STATE_YIELDING, kRanksDone, JOB_STATE_FINALIZING},
    {JOB_STATE_YIELDING, kAttemptEndedRetry, JOB_STATE_QUEUED},
    {JOB_STATE_YIELDING, kAttemptEndedFail, JOB_STATE_QUEUED},
    {JOB_STATE_YIELDING, kGraceOver, JOB_STATE_QUEUED},
    {JOB_STATE_YIELDING, kCancel, JOB_STATE_CANCELLING},

    {JOB_STATE_RECOVERING, kPlace, JOB_STATE_STARTING},
    {JOB_STATE_RECOVERING, kHoldExpired, JOB_STATE_QUEUED},
    {JOB_STATE_RECOVERING, kCancel, JOB_STATE_CANCELLED},

    {JOB_STATE_HELD, kResume, JOB_STATE_QUEUED},
    {JOB_STATE_HELD, kCancel, JOB_STATE_CANCELLED},

    // The one way back from an end: nothing of a FAILED job was published.
    {JOB_STATE_FAILED, kResume, JOB_STATE_QUEUED},

    {JOB_STATE_FINALIZING, kPublished, JOB_STATE_SUCCEEDED},
    {JOB_STATE_FINALIZING, kAttemptEndedRetry, JOB_STATE_RECOVERING},
    {JOB_STATE_FINALIZING, kAttemptEndedFail, JOB_STATE_FAILED},
    {JOB_STATE_FINALIZING, kAttemptEndedHold, JOB_STATE_HELD},
    {JOB_STATE_FINALIZING, kCancel, JOB_STATE_CANCELLING},

    {JOB_STATE_CANCELLING, kAttemptEndedRetry, JOB_STATE_CANCELLED},
    {JOB_STATE_CANCELLING, kAttemptEndedFail, JOB_STATE_CANCELLED},
    {JOB_STATE_CANCELLING, kCancel, JOB_STATE_CANCELLING},

    {JOB_STATE_CANCELLED, kCancel, JOB_STATE_CANCELLED},
    {JOB_STATE_SUCCEEDED, kDelete, JOB_STATE_UNSPECIFIED},
    {JOB_STATE_FAILED, kDelete, JOB_STATE_UNSPECIFIED},
    {JOB_STATE_CANCELLED, kDelete, JOB_STATE_UNSPECIFIED},
};

}  // namespace

std::span<const Transition> JobTransitions() { return kTransitions; }

absl::StatusOr<v1::JobState> NextJobState(v1::JobState from, JobEvent event) {
  for (const Transition& row : kTransitions) {
    if (row.from == from && row.event == event) return row.to;
  }
  v1::Reason reason = v1::REASON_WRONG_STATE;
  if (IsTerminal(from)) {
    reason = v1::REASON_JOB_ENDED;
  } else if (event == kDelete) {
    reason = v1::REASON_JOB_LIVE;
  }
  return ReasonError(absl::StatusCode::kFailedPrecondition, reason,
                     absl::StrCat("the job is ", ShortName(from), "; ",
                                  ShortName(event), " is not possible"));
}

bool IsTerminal(v1::JobState state) {
  return state == JOB_STATE_SUCCEEDED || state == JOB_STATE_FAILED ||
         state == JOB_STATE_CANCELLED;
}

absl::string_view ShortName(v1::JobState state) {
  return absl::StripPrefix(v1::JobState_Name(state).c_str(), "JOB_STATE_");
}

absl::string_view ShortName(v1::AttemptCause cause) {
  return absl::StripPrefix(v1::AttemptCause_Name(cause).c_str(),
                           "ATTEMPT_CAUSE_");
}

absl::string_view ShortName(v1::AttemptState state) {
  return absl::StripPrefix(v1::AttemptState_Name(state).c_str(),
                           "ATTEMPT_STATE_");
}

absl::string_view ShortName(JobEvent event) {
  switch (event) {
    case kSubmit:
      return "submit";
    case kPlace:
      return "place";
    case kRanksReady:
      return "ranks ready";
    case kAttemptEndedRetry:
      return "attempt ended, retry";
    case kAttemptEndedFail:
      return "attempt ended, fail";
    case kAttemptEndedHold:
      return "attempt ended, hold";
    case kHoldExpired:
      return "hold expired";
    case kDrain:
      return "drain";
    case kGraceOver:
      return "grace over";
    case kRanksDone:
      return "ranks done";
    case kPublished:
      return "published";
    case kCancel:
      return "cancel";
    case kResume:
      return "resume";
    case kDelete:
      return "delete";
  }
  return "unknown";
}

}  // namespace ft
