// SPDX-License-Identifier: Apache-2.0

#include "coordinator/attempt_facts.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/job_state.h"

namespace ft {

std::string TextOf(const v1::Placement& placement) {
  return absl::StrJoin(placement.ranks(), " ",
                       [](std::string* out, const v1::RankPlacement& rank) {
                         absl::StrAppend(out, rank.worker_id(), "/",
                                         rank.slot());
                       });
}

// The report's bounds are the daemon's promise; they are kept here.
void KeepExitReport(const v1::AttemptEnded& end, v1::Attempt& attempt) {
  if (end.log_tail().empty() && end.stack().empty() && end.exit_code() == 0) {
    return;
  }
  constexpr int kMaxLines = 100;
  constexpr size_t kMaxBytes = 16 << 10;
  v1::ExitReport& report = *attempt.mutable_exit_report();
  report.set_rank(end.rank());
  report.set_exit_code(end.exit_code());
  report.set_oom_kills(end.oom_kills());
  size_t bytes = 0;
  for (const std::string& frame : end.stack()) {
    bytes += frame.size();
    if (report.stack_size() == kMaxLines || bytes > kMaxBytes) break;
    report.add_stack(frame);
  }
  int first = std::max(0, end.log_tail_size() - kMaxLines);
  bytes = 0;
  for (int i = end.log_tail_size(); i-- > first;) {
    bytes += end.log_tail(i).size();
    if (bytes > kMaxBytes) first = i + 1;
  }
  for (int i = first; i < end.log_tail_size(); ++i) {
    report.add_log_tail(end.log_tail(i));
  }
}

std::map<std::string, std::string> FieldsOfEnd(const v1::Attempt& attempt) {
  std::map<std::string, std::string> fields = {
      {"number", absl::StrCat(attempt.number())},
      {"cause", std::string(ShortName(attempt.cause()))},
      {"message", attempt.message()},
      {"worker", attempt.failed_worker_id()},
      {"signal", absl::StrCat(attempt.signal())},
      {"status_code", absl::StrCat(attempt.status_code())},
      {"first_step", absl::StrCat(attempt.first_step())},
      {"last_step", absl::StrCat(attempt.last_step())}};
  if (attempt.has_exit_report()) {
    const v1::ExitReport& report = attempt.exit_report();
    fields["rank"] = absl::StrCat(report.rank());
    fields["exit_code"] = absl::StrCat(report.exit_code());
    fields["oom_kills"] = absl::StrCat(report.oom_kills());
    if (!report.stack().empty()) fields["stack"] = report.stack(0);
  }
  return fields;
}

}  // namespace ft
