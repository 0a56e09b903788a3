// SPDX-License-Identifier: Apache-2.0
//
// Whom a soak kills, when and where: all of it from the seed, before the first
// kill. What the machine makes of it differs from run to run.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace ft::testing {

enum class Victim { kRank, kWorker, kCoordinator, kAll };

std::string VictimName(Victim victim);

struct PlannedKill {
  Victim victim = Victim::kRank;
  absl::Duration gap;  // Since the kill before.
  bool at_failpoint = false;
  int64_t nth = 1;      // Who passes as the nth dies.
  uint64_t choice = 0;  // Which of several victims or points.
};

struct KillPlanOptions {
  int kills = 40;
  uint64_t seed = 1;
  absl::Duration mean_gap = absl::Seconds(2);
};

// 60 % ranks, 25 % workers, 15 % coordinator, of these one in twenty all at
// once; half at failpoints; exponential gaps. The last fifth are ranks alone,
// so that daemons live long enough for their memory to be looked at.
std::vector<PlannedKill> MakeKillPlan(const KillPlanOptions& options);

}  // namespace ft::testing
