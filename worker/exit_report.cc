// SPDX-License-Identifier: Apache-2.0

#include "worker/exit_report.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace ft {
namespace {

constexpr size_t kMaxTailBytes = 16 << 10;

bool IsOomKill(const RankEnding& ending) {
  return ending.end.signal == SIGKILL && !ending.was_killed &&
         ending.oom_kills > 0;
}

v1::AttemptCause CauseOf(const RankEnding& ending) {
  if (IsOomKill(ending)) return v1::ATTEMPT_CAUSE_OOM_HOST;
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
  if (IsOomKill(ending)) {
    return absl::StrCat(who,
                        " was killed by the kernel: the memory of the "
                        "worker was full");
  }
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

// The stack of a crash, as train/crash_stack writes it: "*** SIGSEGV received
// at ...", "PC: @ ...", "    @ ...".
void AddStack(const std::deque<std::string>& tail, v1::AttemptEnded& report) {
  const auto begin =
      std::find_if(tail.rbegin(), tail.rend(), [](const std::string& line) {
        return absl::StartsWith(line, "*** SIG");
      });
  if (begin == tail.rend()) return;
  for (auto line = begin.base(); line != tail.end(); ++line) {
    if (!absl::StartsWith(*line, "PC: @") &&
        !absl::StartsWith(*line, "    @")) {
      break;
    }
    report.add_stack(std::string(absl::StripAsciiWhitespace(*line)));
  }
}

// The last lines that fit.
void AddTail(const std::deque<std::string>& tail, v1::AttemptEnded& report) {
  size_t bytes = 0;
  auto first = tail.end();
  while (first != tail.begin()) {
    bytes += std::prev(first)->size();
    if (bytes > kMaxTailBytes) break;
    --first;
  }
  for (; first != tail.end(); ++first) report.add_log_tail(*first);
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
  report.set_oom_kills(IsOomKill(ending) ? ending.oom_kills : 0);
  AddStack(ending.log_tail, report);
  AddTail(ending.log_tail, report);
  return report;
}

}  // namespace ft
