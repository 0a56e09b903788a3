// SPDX-License-Identifier: Apache-2.0
//
// No seed violates a rule; and rules that could not find a bug would be worth
// nothing, so each planted bug is found.

#include "tests/simulation/simulation.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ft::testing {
namespace {

// The schedule of make test; `make simulate SEEDS=N` runs more.
constexpr uint64_t kSeeds = 200;
constexpr uint64_t kSeedsToFindABug = 1000;

TEST(SimulationTest, NoSeedViolatesARule) {
  std::map<std::string, int> faults;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const SimulationReport report =
        RunSimulation({.seed = seed, .storm = absl::Minutes(3)});
    ASSERT_EQ(report.violation, "")
        << "again: ft-simulate --seeds 1 --minutes 3 --seed " << seed;
    for (const auto& [name, count] : report.faults) faults[name] += count;
  }
  EXPECT_GE(faults.size(), 18u) << "a fault is never drawn";
}

TEST(SimulationTest, OneSeedIsOneHistory) {
  const SimulationOptions options{.seed = 5, .keeps_history = true};
  const SimulationReport once = RunSimulation(options);
  EXPECT_EQ(once.history, RunSimulation(options).history);
  EXPECT_GT(once.history.size(), 100u);
  EXPECT_NE(once.history,
            RunSimulation({.seed = 6, .keeps_history = true}).history);
}

// Whether a seed finds it. In a process of its own: a core with a bug may also
// crash, which finds it too.
bool IsFound(Plant plant) {
  const pid_t child = fork();
  if (child == 0) {
    if (freopen("/dev/null", "w", stderr) == nullptr) _exit(2);
    for (uint64_t seed = 1; seed <= kSeedsToFindABug; ++seed) {
      const SimulationReport report =
          RunSimulation({.seed = seed, .plant = plant});
      if (!report.violation.empty()) _exit(1);
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) || WEXITSTATUS(status) == 1;
}

class PlantTest : public ::testing::TestWithParam<Plant> {};

TEST_P(PlantTest, IsFound) { EXPECT_TRUE(IsFound(GetParam())); }

INSTANTIATE_TEST_SUITE_P(
    Every, PlantTest,
    ::testing::Values(Plant::kEffectsBeforeCommit, Plant::kStaleEpochAccepted,
                      Plant::kEpochNotDurable, Plant::kReplyNotStored,
                      Plant::kEventLost, Plant::kEndOfAttemptNotStored,
                      Plant::kJobRowNotStored, Plant::kBarrierOpensEarly,
                      Plant::kPublishesEarly, Plant::kSpoolMarkNotStored,
                      Plant::kNoReloadAfterFullStore, Plant::kCycleForgotten,
                      Plant::kQuarantineNotStored, Plant::kKillCountsAsCrash,
                      Plant::kDurableStepGoesBack, Plant::kStaleRanksAreValid));

}  // namespace
}  // namespace ft::testing
