// SPDX-License-Identifier: Apache-2.0

#include "worker/exit_report.h"

#include <csignal>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ft {
namespace {

v1::AttemptCause CauseOf(const RankEnding& ending) {
  if (ending.end.signal != 0) return v1::ATTEMPT_CAUSE_RANK_SIGNAL;
  if (!ending.last_words.has_value()) return v1::ATTEMPT_CAUSE_RANK_EXIT;
  if (ending.last_words->non_finite()) return v1::ATTEMPT_CAUSE_NON_FINITE;
  if (ending.last_words->out_of_memory()) return v1::ATTEMPT_CAUSE_OOM_HOST;
  switch (static_cast<absl::StatusCode>(ending.last_words->code())) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kUnimplemented:
      return v1::ATTEMPT_CAUSE_INVALID_ARGUMENT;
    default:
      return v1::ATTEMPT_CAUSE_RANK_EXIT;
  }
}

std::string MessageOf(const RankEnding& ending) {
  const std::string who = absl::StrCat("rank ", ending.rank);
  if (ending.end.signal != 0) {
    return absl::StrCat(who, " was ended by signal ", ending.end.signal, " (",
                        strsignal(ending.end.signal), ")");
  }
  if (ending.last_words.has_value() && !ending.last_words->message().empty()) {
    return absl::StrCat(who, ": ", ending.last_words->message());
  }
  return absl::StrCat(who, " exited with ", ending.end.exit_code,
                      " and said nothing");
}

}  // namespace

v1::AttemptEnded ReportOf(const RankEnding& ending) {
  v1::AttemptEnded report;
  report.set_cause(CauseOf(ending));
  report.set_rank(ending.rank);
  report.set_exit_code(ending.end.exit_code);
  report.set_signal(ending.end.signal);
  report.set_message(MessageOf(ending));
  if (ending.last_words.has_value()) {
    report.set_status_code(ending.last_words->code());
    report.set_last_step(ending.last_words->last_step());
  }
  for (const std::string& line : ending.log_tail) report.add_log_tail(line);
  return report;
}

}  // namespace ft
