// SPDX-License-Identifier: Apache-2.0
//
// What a soak found, as JSON for programs and as Markdown for people.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tests/chaos/killer.h"
#include "tests/chaos/soak_monitor.h"

namespace ft::testing {

struct SoakReport {
  int kills_wanted = 0;
  uint64_t seed = 0;
  absl::Duration took;
  std::vector<KillRecord> history;
  std::map<std::string, std::pair<int64_t, int64_t>> points;  // Passed, killed.
  int submitted = 0;
  int submitted_twice = 0;
  std::map<std::string, int> outcomes;  // Jobs by final state.
  int attempts = 0;
  std::map<std::string, int> causes;  // Of attempts' ends.
  int64_t events = 0;
  int64_t told_events = 0;
  int64_t steps_stored = 0;
  int64_t steps_taken_again = 0;
  int blobs = 0;
  std::map<std::string, int> lives;  // Of daemons.
  std::map<std::string, MemoryGrowth> memory;
  std::vector<std::string> violations;

  bool passed() const { return violations.empty(); }
  std::string ReplayCommand() const;
  std::string Json() const;
  std::string Markdown() const;
};

// Both, as `prefix`.json and `prefix`.md.
absl::Status WriteReport(const SoakReport& report, const std::string& prefix);

}  // namespace ft::testing
