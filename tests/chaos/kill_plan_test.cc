// SPDX-License-Identifier: Apache-2.0

#include "tests/chaos/kill_plan.h"

#include <gtest/gtest.h>

#include <map>

namespace ft::testing {
namespace {

std::map<Victim, int> Count(const std::vector<PlannedKill>& plan) {
  std::map<Victim, int> counts;
  for (const PlannedKill& kill : plan) ++counts[kill.victim];
  return counts;
}

TEST(KillPlanTest, HasTheSharesOfTheContract) {
  const auto plan = MakeKillPlan({.kills = 1000, .seed = 3});
  ASSERT_EQ(plan.size(), 1000);
  std::map<Victim, int> counts = Count(plan);
  EXPECT_EQ(counts[Victim::kRank], 600);
  EXPECT_EQ(counts[Victim::kWorker], 250);
  EXPECT_EQ(counts[Victim::kCoordinator] + counts[Victim::kAll], 150);
  EXPECT_GT(counts[Victim::kAll], 25);
  int aimed = 0;
  absl::Duration sum;
  for (const PlannedKill& kill : plan) {
    aimed += kill.at_failpoint;
    sum += kill.gap;
  }
  EXPECT_NEAR(aimed, 500, 60);
  EXPECT_NEAR(absl::ToDoubleSeconds(sum), 2000, 300);
}

TEST(KillPlanTest, AFewKillsReachEveryKindOfVictim) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::map<Victim, int> counts =
        Count(MakeKillPlan({.kills = 40, .seed = seed}));
    EXPECT_EQ(counts[Victim::kRank], 24);
    EXPECT_EQ(counts[Victim::kWorker], 10);
    EXPECT_EQ(counts[Victim::kCoordinator] + counts[Victim::kAll], 6);
  }
}

TEST(KillPlanTest, TheSeedDecides) {
  const auto one = MakeKillPlan({.kills = 50, .seed = 1});
  const auto again = MakeKillPlan({.kills = 50, .seed = 1});
  const auto other = MakeKillPlan({.kills = 50, .seed = 2});
  int differences = 0;
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].victim, again[i].victim);
    EXPECT_EQ(one[i].gap, again[i].gap);
    EXPECT_EQ(one[i].choice, again[i].choice);
    differences += one[i].choice != other[i].choice;
  }
  EXPECT_GT(differences, 40);
}

TEST(KillPlanTest, AtItsEndDaemonsAreLeftAlone) {
  const auto plan = MakeKillPlan({.kills = 100, .seed = 5});
  for (size_t i = 80; i < plan.size(); ++i) {
    EXPECT_EQ(plan[i].victim, Victim::kRank);
  }
}

}  // namespace
}  // namespace ft::testing
