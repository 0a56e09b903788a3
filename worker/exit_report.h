// SPDX-License-Identifier: Apache-2.0
//
// Why a rank ended, from its exit code, its signal, the kernel's count of
// processes it killed for memory, its last words and its last lines.

#pragma once

#include <deque>
#include <optional>
#include <string>

#include "ft/v1/ranks.pb.h"
#include "ft/v1/workers.pb.h"
#include "worker/rank_process.h"

namespace ft {

// What is known of a rank that ended.
struct RankEnding {
  int rank = 0;
  RankEnd end;
  std::optional<v1::RankExit> last_words;
  std::deque<std::string> log_tail;

  // We killed it: its signal says nothing about it.
  bool was_killed = false;
  // Kills for memory that were counted just now.
  int oom_kills = 0;

  bool is_success() const {
    return end.signal == 0 && end.exit_code == 0 && last_words.has_value() &&
           last_words->code() == 0;
  }
};

// REQUIRES: !ending.is_success()
v1::AttemptEnded ReportOf(const RankEnding& ending);

}  // namespace ft
