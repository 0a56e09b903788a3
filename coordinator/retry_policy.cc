// SPDX-License-Identifier: Apache-2.0

#include "coordinator/retry_policy.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "coordinator/job_state.h"

namespace ft {
namespace {

// A crash of the program itself; the same one again is poison.
enum class Kind {
  kRetry,
  kRetryLater,
  kRetryEarlier,
  kCrash,
  kFail,
};

// The row of a rank that ended with a status code and no stronger cause.
Kind KindOfCode(int status_code) {
  switch (static_cast<absl::StatusCode>(status_code)) {
    case absl::StatusCode::kAborted:
      return Kind::kRetry;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
      return Kind::kRetryLater;
    case absl::StatusCode::kDataLoss:
      return Kind::kRetryEarlier;
    case absl::StatusCode::kOk:  // It said nothing.
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return Kind::kCrash;
    default:
      return Kind::kFail;
  }
}

Kind KindOf(const AttemptOutcome& outcome) {
  switch (outcome.cause) {
    case v1::ATTEMPT_CAUSE_WORKER_CRASH:
    case v1::ATTEMPT_CAUSE_WORKER_LOST:
    case v1::ATTEMPT_CAUSE_DEVICE_FAULT:
    case v1::ATTEMPT_CAUSE_YIELDED:
    // Nobody but us stops ranks; a job that still lives wants another attempt.
    case v1::ATTEMPT_CAUSE_STOPPED:
      return Kind::kRetry;
    case v1::ATTEMPT_CAUSE_RANK_HANG:
    case v1::ATTEMPT_CAUSE_START_TIMEOUT:
      return Kind::kRetryLater;
    case v1::ATTEMPT_CAUSE_OOM_HOST:  // retry.on_oom has only `fail` so far.
    case v1::ATTEMPT_CAUSE_OOM_DEVICE:
    case v1::ATTEMPT_CAUSE_NON_FINITE:  // numeric.on_nan has only `stop` so
                                        // far.
    case v1::ATTEMPT_CAUSE_DATA_ERROR:
    case v1::ATTEMPT_CAUSE_INVALID_ARGUMENT:
      return Kind::kFail;
    case v1::ATTEMPT_CAUSE_RANK_SIGNAL:
      // SIGKILL comes from outside: an operator, a killer of tests.
      return outcome.signal == SIGKILL ? Kind::kRetry : Kind::kCrash;
    case v1::ATTEMPT_CAUSE_RANK_EXIT:
      return KindOfCode(outcome.status_code);
    default:
      return Kind::kCrash;
  }
}

// The cause's name; for a rank that exited, its status code's, which says more.
std::string ReasonName(const AttemptOutcome& outcome) {
  if (outcome.cause == v1::ATTEMPT_CAUSE_RANK_EXIT) {
    return absl::StatusCodeToString(
        static_cast<absl::StatusCode>(outcome.status_code));
  }
  return std::string(ShortName(outcome.cause));
}

// "The same step on 2 workers, or 3 times on one." Empty: no poison.
std::string WhyPoison(const AttemptOutcome& outcome,
                      const RetryHistory& history) {
  int times = 1;
  for (const AttemptOutcome& earlier : history.earlier) {
    if (!IsCrash(earlier) || earlier.last_step != outcome.last_step) continue;
    if (earlier.worker_id != outcome.worker_id) {
      return absl::StrCat("crashed after step ", outcome.last_step,
                          " on two workers, ", earlier.worker_id, " and ",
                          outcome.worker_id);
    }
    ++times;
  }
  if (times < 3) return "";
  return absl::StrCat("crashed after step ", outcome.last_step, " ", times,
                      " times on ", outcome.worker_id);
}

// FNV-1a: a hash that is the same in every build and run.
uint64_t StableHash(absl::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (const char byte : text) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 1099511628211u;
  }
  return hash;
}

// 1 s x 2^n, at most 60 s, times a jitter in [0.5, 1).
absl::Duration BackOff(int tries, absl::string_view job_id, uint64_t epoch) {
  const absl::Duration whole =
      std::min(absl::Seconds(1) * (int64_t{1} << std::clamp(tries, 0, 10)),
               absl::Seconds(60));
  const uint64_t hash = StableHash(absl::StrCat(job_id, "/", epoch));
  return whole * (0.5 + static_cast<double>(hash % 1024) / 2048.0);
}

// Rises with what an end says about the first fault.
int Telling(const AttemptOutcome& outcome) {
  if (outcome.cause == v1::ATTEMPT_CAUSE_STOPPED ||
      outcome.cause == v1::ATTEMPT_CAUSE_YIELDED ||
      outcome.cause == v1::ATTEMPT_CAUSE_COMPLETED ||
      outcome.cause == v1::ATTEMPT_CAUSE_UNSPECIFIED) {
    return 0;
  }
  switch (KindOf(outcome)) {
    case Kind::kRetry:
      return outcome.cause == v1::ATTEMPT_CAUSE_RANK_EXIT ? 1 : 3;
    case Kind::kRetryLater:
      return 2;
    case Kind::kRetryEarlier:
    case Kind::kCrash:
      return 4;
    case Kind::kFail:
      return 5;
  }
  return 0;
}

}  // namespace

AttemptOutcome OutcomeOf(const v1::Attempt& attempt) {
  return {.cause = attempt.cause(),
          .status_code = attempt.status_code(),
          .signal = attempt.signal(),
          .worker_id = attempt.failed_worker_id(),
          .last_step = attempt.last_step()};
}

RetryVerdict JudgeAttempt(const AttemptOutcome& outcome,
                          const RetryHistory& history, absl::string_view job_id,
                          uint64_t epoch) {
  const Kind kind = KindOf(outcome);
  if (kind == Kind::kFail) {
    return {.action = RetryAction::kFail, .reason = ReasonName(outcome)};
  }
  if (kind == Kind::kCrash) {
    std::string why = WhyPoison(outcome, history);
    if (!why.empty()) {
      return {.action = RetryAction::kHold,
              .reason = "POISON",
              .why = std::move(why)};
    }
  }
  if (history.without_progress >= history.max_without_progress) {
    return {.action = RetryAction::kHold,
            .reason = "NO_PROGRESS",
            .why = absl::StrCat(history.without_progress,
                                " attempts in a row without a later "
                                "durable step")};
  }
  switch (kind) {
    case Kind::kRetryLater:
      return {.action = RetryAction::kRetryLater,
              .wait = BackOff(std::max(0, history.without_progress - 1), job_id,
                              epoch)};
    case Kind::kRetryEarlier:
      return {.action = RetryAction::kRetryEarlier};
    case Kind::kCrash:
      return {.action = RetryAction::kRetryElsewhere};
    default:
      return {.action = RetryAction::kRetry};
  }
}

bool IsCrash(const AttemptOutcome& outcome) {
  return KindOf(outcome) == Kind::kCrash;
}

bool IsMoreTelling(const AttemptOutcome& a, const AttemptOutcome& b) {
  return Telling(a) > Telling(b);
}

}  // namespace ft
