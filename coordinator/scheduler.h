// SPDX-License-Identifier: Apache-2.0
//
// Which waiting jobs start now: a pure function of the queue and the fleet.
// Order is priority, then age. A gang that would fit if its workers were empty
// keeps what is free of them for itself, so that small jobs cannot starve it; a
// gang that could never fit blocks nobody.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "coordinator/placement.h"

namespace ft {

struct PlannedGang {
  std::string job_id;
  Gang gang;
};

struct WaitReason {
  std::string kind;  // NO_WORKER, NO_MODEL, NOT_ENOUGH_FREE, NEVER_FITS,
                     // BACKOFF.
  std::string text;  // For people.
};

struct Waiting {
  std::string job_id;
  std::shared_ptr<const WaitReason> why;  // Never null; often that of many.
  int32_t jobs_ahead = 0;
};

struct Plan {
  std::vector<PlannedGang> placements;
  std::vector<Waiting> waiting;  // In queue order.
};

// `waiting`: jobs whose time has come, in any order. `offers`: workers that
// take new attempts.
Plan MakePlan(std::vector<GangDemand> waiting, std::vector<WorkerOffer> offers);

}  // namespace ft
