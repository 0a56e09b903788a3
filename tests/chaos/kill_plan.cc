// SPDX-License-Identifier: Apache-2.0

#include "tests/chaos/kill_plan.h"

#include <algorithm>
#include <random>

namespace ft::testing {
namespace {

constexpr double kRanks = 0.60;
constexpr double kWorkers = 0.25;
constexpr double kAllOfCoordinators = 0.33;  // 5 % of all kills.
constexpr double kLastPart = 0.20;

}  // namespace

std::string VictimName(Victim victim) {
  switch (victim) {
    case Victim::kRank:
      return "rank";
    case Victim::kWorker:
      return "worker";
    case Victim::kCoordinator:
      return "coordinator";
    case Victim::kAll:
      return "all";
  }
  return "";
}

std::vector<PlannedKill> MakeKillPlan(const KillPlanOptions& options) {
  std::mt19937_64 random(options.seed);
  std::exponential_distribution<double> gap(
      1 / absl::ToDoubleSeconds(options.mean_gap));
  std::uniform_real_distribution<double> uniform(0, 1);
  const int ranks = static_cast<int>(options.kills * kRanks + 0.5);
  const int workers = static_cast<int>(options.kills * kWorkers + 0.5);
  std::vector<Victim> victims;
  for (int i = 0; i < options.kills; ++i) {
    if (i < ranks) {
      victims.push_back(Victim::kRank);
    } else if (i < ranks + workers) {
      victims.push_back(Victim::kWorker);
    } else {
      victims.push_back(uniform(random) < kAllOfCoordinators
                            ? Victim::kAll
                            : Victim::kCoordinator);
    }
  }
  // The first of the list are ranks; they stay behind as the last part.
  const auto last =
      victims.begin() +
      std::min(ranks, static_cast<int>(options.kills * kLastPart));
  std::shuffle(last, victims.end(), random);
  std::rotate(victims.begin(), last, victims.end());
  std::vector<PlannedKill> plan;
  for (const Victim victim : victims) {
    plan.push_back(
        {.victim = victim,
         .gap = absl::Seconds(gap(random)),
         .at_failpoint = victim != Victim::kAll && uniform(random) < 0.5,
         .nth = 1 + static_cast<int64_t>(random() % 3),
         .choice = random()});
  }
  return plan;
}

}  // namespace ft::testing
