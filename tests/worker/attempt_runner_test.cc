// SPDX-License-Identifier: Apache-2.0
//
// An attempt at its worker: orders that come while its ranks are being started
// reach all of them. Ranks are shell scripts that keep what they are sent.

#include "worker/attempt_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "common/frame.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::ElementsAre;
using testing::IsOk;
using testing::TestDir;
using Kind = v1::ToRank::MessageCase;

class AttemptRunnerTest : public ::testing::Test {
 protected:
  AttemptRunnerTest() {
    config_.data_dir = dir_.path();
    config_.worker_id = "w-1";
    config_.train_program = dir_ / "rank.sh";
    // $3 is the rank's workspace.
    EXPECT_THAT(WriteFileAtomic(config_.train_program,
                                absl::StrCat("#!/bin/sh\nexec cat <&3 >",
                                             dir_.path(), "/$(basename $3)\n"),
                                0700),
                IsOk());
    host_.config = &config_;
    host_.spawner = &spawner_;
    host_.find_model = [](const std::string&) {
      return std::pair<std::string, std::string>("/model", "digest");
    };
    host_.update = [](const v1::AttemptUpdate&) {};
    host_.event = [](const v1::Event&, const v1::StepMetrics*) {};
    host_.step = [](const v1::StepMetrics&) {};
    host_.log = [](const v1::LogLine&) {};
    host_.flush = [] { return true; };
    host_.send = [](const v1::ConnectRequest&) {};
    host_.take_oom_kills = [] { return 0; };
  }

  // An attempt of two ranks, both here.
  void Start() {
    v1::StartAttempt order;
    order.set_job_id("job-1");
    order.set_epoch(7);
    for (const int rank : {0, 1}) {
      v1::RankPlacement* place = order.mutable_placement()->add_ranks();
      place->set_rank(rank);
      place->set_worker_id("w-1");
      place->set_slot(rank);
    }
    runner_ = std::make_unique<AttemptRunner>(order, host_);
  }
  void Yield() { runner_->Yield(absl::Minutes(10)); }

  // What a rank was sent, once it was sent `last`, or after a while.
  std::vector<Kind> Sent(int rank, Kind last) {
    std::vector<Kind> sent;
    const absl::Time deadline = absl::Now() + absl::Seconds(5);
    while ((sent.empty() || sent.back() != last) && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(5));
      FrameDecoder frames;
      frames.Append(
          ReadFile(dir_ / absl::StrCat("rank-", rank), 1 << 20).value_or(""));
      sent.clear();
      while (true) {
        const auto frame = frames.Next();
        if (!frame.ok() || !frame->has_value()) break;
        v1::ToRank message;
        EXPECT_TRUE(message.ParseFromString(**frame));
        sent.push_back(message.message_case());
      }
    }
    return sent;
  }

  const TestDir dir_;
  RankSpawner spawner_;
  WorkerConfig config_;
  AttemptHost host_;
  std::unique_ptr<AttemptRunner> runner_;
};

TEST_F(AttemptRunnerTest, AYieldReachesRanksThatRun) {
  Start();
  ASSERT_THAT(Sent(1, Kind::kStart), ElementsAre(Kind::kStart));
  Yield();
  for (const int rank : {0, 1}) {
    EXPECT_THAT(Sent(rank, Kind::kYield),
                ElementsAre(Kind::kStart, Kind::kYield));
  }
}

TEST_F(AttemptRunnerTest, AYieldReachesRanksThatAreNotStartedYet) {
  absl::Notification has_yielded;
  host_.find_model = [&](const std::string&) {
    has_yielded.WaitForNotification();
    return std::pair<std::string, std::string>("/model", "digest");
  };
  Start();
  Yield();
  has_yielded.Notify();
  for (const int rank : {0, 1}) {
    EXPECT_THAT(Sent(rank, Kind::kYield),
                ElementsAre(Kind::kStart, Kind::kYield));
  }
}

TEST_F(AttemptRunnerTest, AYieldReachesTheRankThatIsBeingStarted) {
  // Where a job has no place for snapshots, each rank is warned of as it is
  // started.
  const absl::StatusOr<SnapshotStore> snapshots =
      SnapshotStore::Open(dir_ / "snapshots", /*max_bytes=*/1 << 20);
  ASSERT_THAT(snapshots, IsOk());
  ASSERT_THAT(WriteFileAtomic(dir_ / "snapshots/job-1", ""), IsOk());
  host_.snapshots = &*snapshots;
  absl::Notification has_runner;
  int warnings = 0;
  host_.event = [&](const v1::Event&, const v1::StepMetrics*) {
    has_runner.WaitForNotification();
    if (++warnings == 2) Yield();
  };
  Start();
  has_runner.Notify();
  for (const int rank : {0, 1}) {
    EXPECT_THAT(Sent(rank, Kind::kYield),
                ElementsAre(Kind::kStart, Kind::kYield));
  }
}

}  // namespace
}  // namespace ft
