// SPDX-License-Identifier: Apache-2.0
//
// Whatever is killed in the middle of a job, it completes by itself, and its
// adapter has the same bits as if nothing had happened.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "absl/strings/str_cat.h"
#include "tests/integration/tiny_chat.h"
#include "tests/integration/undisturbed.h"
#include "tests/testing/local_cluster.h"

namespace ft {
namespace {

using testing::LocalCluster;
using testing::TinyChat;

constexpr int kSteps = testing::kFaultSteps;

class FaultsTest : public ::testing::Test {
 protected:
  // Starts the job and waits until it has stored a checkpoint and gone on.
  std::string StartAndPassACheckpoint() {
    const std::string job = cluster_.Submit(TinyChat(2, kSteps)).job_id();
    cluster_.WaitFor(job, [](const v1::Job& now) {
      return now.status().checkpoint_step() > 0 &&
             now.status().progress().step() >
                 now.status().checkpoint_step() + 2;
    });
    EXPECT_EQ(cluster_.Ranks(job).size(), 2) << "the job is over already";
    return job;
  }
  void ExpectSameAdapter(const v1::Job& job) {
    testing::ExpectSameAdapter(cluster_, job);
  }

  LocalCluster cluster_;
};

TEST_F(FaultsTest, ARankIsKilled) {
  for (const int victim : {0, 1}) {
    const std::string id = StartAndPassACheckpoint();
    ASSERT_EQ(kill(cluster_.Ranks(id).at(victim), SIGKILL), 0);
    const v1::Job job = cluster_.WaitForEnd(id);
    ExpectSameAdapter(job);
    ASSERT_EQ(job.status().attempts_size(), 2);
    EXPECT_EQ(job.status().attempts(0).cause(), v1::ATTEMPT_CAUSE_RANK_SIGNAL);
    EXPECT_GT(job.status().attempts(1).epoch(),
              job.status().attempts(0).epoch());
  }
}

TEST_F(FaultsTest, ARankCrashesAndItsStackIsKept) {
  const std::string id = StartAndPassACheckpoint();
  ASSERT_EQ(kill(cluster_.Ranks(id).at(1), SIGSEGV), 0);
  const v1::Job job = cluster_.WaitForEnd(id);
  ExpectSameAdapter(job);
  const v1::Attempt& crashed = job.status().attempts(0);
  EXPECT_EQ(crashed.cause(), v1::ATTEMPT_CAUSE_RANK_SIGNAL);
  EXPECT_EQ(crashed.signal(), SIGSEGV);
  EXPECT_EQ(crashed.exit_report().rank(), 1);
  EXPECT_GT(crashed.exit_report().stack_size(), 0) << crashed.DebugString();
  EXPECT_GT(crashed.exit_report().log_tail_size(), 3);
}

TEST_F(FaultsTest, ARankThatCrashesAtOneStepIsHeldUntilSomebodyLooks) {
  const std::string id = cluster_.Submit(TinyChat(1, kSteps)).job_id();
  // Before its first step, on both workers.
  for (int crashes = 0; crashes < 2; ++crashes) {
    cluster_.WaitFor(id, [&](const v1::Job& job) {
      return job.status().attempts_size() == crashes + 1 &&
             job.status().state() == v1::JOB_STATE_STARTING &&
             cluster_.Ranks(id).size() == 1;
    });
    ASSERT_EQ(kill(cluster_.Ranks(id).at(0), SIGABRT), 0);
    cluster_.WaitFor(id, [&](const v1::Job& job) {
      return job.status().attempts(crashes).state() == v1::ATTEMPT_STATE_ENDED;
    });
  }
  const v1::Job held = cluster_.WaitFor(id, [](const v1::Job& job) {
    return job.status().state() == v1::JOB_STATE_HELD;
  });
  EXPECT_EQ(held.status().reason(), "POISON");
  EXPECT_TRUE(cluster_.client().ResumeJob(id).ok());
  EXPECT_EQ(cluster_.WaitForEnd(id).status().state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(FaultsTest, ARankHoldsStillUntilItIsKilled) {
  // A rank that was stopped holds the others up, but breaks nothing.
  const std::string id = StartAndPassACheckpoint();
  const pid_t rank = cluster_.Ranks(id).at(1);
  ASSERT_EQ(kill(rank, SIGSTOP), 0);
  ASSERT_EQ(kill(rank, SIGKILL), 0);
  ExpectSameAdapter(cluster_.WaitForEnd(id));
}

TEST_F(FaultsTest, TheCoordinatorIsKilledAndTheRunningAttemptIsAdopted) {
  const std::string id = StartAndPassACheckpoint();
  const std::map<int, pid_t> ranks = cluster_.Ranks(id);
  cluster_.EndCoordinator(SIGKILL);
  cluster_.StartCoordinator();
  const v1::Job job = cluster_.WaitForEnd(id);
  ExpectSameAdapter(job);
  // The ranks went on: nothing was trained twice.
  EXPECT_EQ(job.status().attempts_size(), 1);
}

TEST_F(FaultsTest, TheCoordinatorIsKilledAgainAndAgain) {
  const std::string id = cluster_.Submit(TinyChat(2, kSteps)).job_id();
  for (int step = 20; step <= 160; step += 35) {
    cluster_.WaitFor(id, [&](const v1::Job& job) {
      return job.status().progress().step() >= step;
    });
    cluster_.EndCoordinator(SIGKILL);
    cluster_.StartCoordinator();
  }
  ExpectSameAdapter(cluster_.WaitForEnd(id));
}

TEST_F(FaultsTest, AWorkerIsKilledAndItsRankGoesWithIt) {
  const std::string id = StartAndPassACheckpoint();
  cluster_.EndWorker(2, SIGKILL);
  cluster_.StartWorker(2);
  const v1::Job job = cluster_.WaitForEnd(id);
  ExpectSameAdapter(job);
  EXPECT_EQ(job.status().attempts_size(), 2);
}

TEST_F(FaultsTest, AWorkerThatDrainsLosesNoStep) {
  const std::string id = StartAndPassACheckpoint();
  cluster_.EndWorker(1, SIGTERM);
  const v1::Job waiting = cluster_.WaitFor(id, [](const v1::Job& job) {
    return job.status().state() == v1::JOB_STATE_QUEUED;
  });
  EXPECT_EQ(waiting.status().attempts(0).cause(), v1::ATTEMPT_CAUSE_YIELDED);
  // Its last step is its checkpoint.
  EXPECT_EQ(waiting.status().checkpoint_step(),
            waiting.status().progress().step());
  cluster_.StartWorker(1);
  ExpectSameAdapter(cluster_.WaitForEnd(id));
}

TEST_F(FaultsTest, EverythingIsKilledAtOnce) {
  const std::string id = StartAndPassACheckpoint();
  cluster_.EndCoordinator(SIGKILL);
  cluster_.EndWorker(1, SIGKILL);
  cluster_.EndWorker(2, SIGKILL);
  cluster_.StartCoordinator();
  cluster_.StartWorker(1);
  cluster_.StartWorker(2);
  ExpectSameAdapter(cluster_.WaitForEnd(id));
}

// No answer is that to the newest heartbeat; the worker whose rank does not
// publish learns by nothing else that the attempt is over.
TEST(SlowNetworkTest, AWorkerLeavesAnAttemptThatIsOver) {
  LocalCluster cluster(testing::LocalClusterOptions{
      .timer_scale = 0.3, .delay = absl::Milliseconds(200)});
  const v1::Job job =
      cluster.WaitForEnd(cluster.Submit(TinyChat(2, 10)).job_id());
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(cluster.CheckInvariants(), ::testing::IsEmpty());
}

}  // namespace
}  // namespace ft
