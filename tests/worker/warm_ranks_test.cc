// SPDX-License-Identifier: Apache-2.0
//
// Processes that stand by are there, are used once, are replaced, and never
// outlive who keeps them.

#include "worker/warm_ranks.h"

#include <signal.h>

#include <functional>

#include "absl/time/clock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

class WarmRanksTest : public ::testing::Test {
 protected:
  // A program that waits for the end of its link.
  std::string Waiter() { return Script("exec cat <&3"); }
  std::string Script(const std::string& line) {
    const std::string path = dir_ / "program";
    EXPECT_TRUE(WriteFileAtomic(path, "#!/bin/sh\n" + line + "\n", 0755).ok());
    return path;
  }
  WarmRanks::Options OptionsFor(const std::string& program, int count = 2) {
    return {.program = program,
            .workspace = dir_.path(),
            .count = count,
            .refill_delay = absl::ZeroDuration(),
            .retry_delay = absl::Milliseconds(1)};
  }
  static bool Becomes(const std::function<bool()>& is_so) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!is_so() && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(2));
    }
    return is_so();
  }

  const testing::TestDir dir_;
  RankSpawner spawner_;
};

TEST_F(WarmRanksTest, EachIsUsedOnceAndReplaced) {
  WarmRanks ranks(OptionsFor(Waiter()), spawner_);
  ASSERT_TRUE(Becomes([&] { return ranks.count() == 2; }));
  std::optional<SpawnedRank> first = ranks.Take();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(kill(first->pid, 0), 0) << "it does not live";
  ASSERT_TRUE(Becomes([&] { return ranks.count() == 2; }));
  for (int i = 0; i < 2; ++i) {
    const std::optional<SpawnedRank> other = ranks.Take();
    ASSERT_TRUE(other.has_value());
    EXPECT_NE(other->pid, first->pid);
    KillRank(other->pid);
    WaitForRank(other->pid);
  }
  // What was taken is its taker's: closing the link ends it.
  first->link.Close();
  EXPECT_EQ(WaitForRank(first->pid).signal, 0);
}

TEST_F(WarmRanksTest, OneThatDiedIsNotHandedOut) {
  WarmRanks ranks(OptionsFor(Waiter(), 1), spawner_);
  ASSERT_TRUE(Becomes([&] { return ranks.count() == 1; }));
  std::optional<SpawnedRank> probe = ranks.Take();
  ASSERT_TRUE(Becomes([&] { return ranks.count() == 1; }));
  KillRank(probe->pid);
  WaitForRank(probe->pid);
  // A program that ends at once: none of its processes is ever handed out for
  // long, and it is not started in a tight loop.
  WarmRanks dying(OptionsFor(Script("exit 3"), 1), spawner_);
  EXPECT_TRUE(Becomes([&] { return !dying.Take().has_value(); }));
}

TEST_F(WarmRanksTest, NoneIsLeftBehind) {
  pid_t pid = 0;
  {
    WarmRanks ranks(OptionsFor(Waiter(), 1), spawner_);
    ASSERT_TRUE(Becomes([&] { return ranks.count() == 1; }));
    pid = ranks.Take()->pid;  // Whose link closes here.
    ASSERT_TRUE(Becomes([&] { return ranks.count() == 1; }));
  }
  WaitForRank(pid);
  EXPECT_NE(kill(pid, 0), 0);
}

}  // namespace
}  // namespace ft
