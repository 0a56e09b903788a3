// SPDX-License-Identifier: Apache-2.0
//
// An attempt at its worker: orders that come while its ranks are being started
// reach all of them, and a disk that is full is told until there is room. Ranks
// are shell scripts that keep what they are sent and say what they are told to.

#include "worker/attempt_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>

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
                                absl::StrCat("#!/bin/sh\nrank=", dir_.path(),
                                             R"(/$(basename $3)
while sleep 0.01; do
  [ -f $rank-says ] && cat $rank-says >&3 && rm $rank-says
done &
exec cat <&3 >$rank
)"),
                                0700),
                IsOk());
    host_.config = &config_;
    host_.spawner = &spawner_;
    host_.find_model = [](const std::string&) {
      return std::pair<std::string, std::string>("/model", "digest");
    };
    host_.update = [](const v1::AttemptUpdate&) {};
    host_.event = [this](const v1::Event& event, const v1::StepMetrics*) {
      if (event.kind() != v1::EVENT_KIND_CONDITION) return;
      absl::MutexLock lock(&mutex_);
      told_of_space_.push_back(event.fields().at("is_on"));
    };
    host_.step = [](const v1::StepMetrics&) {};
    host_.log = [](const v1::LogLine&) {};
    host_.reserve = &reserve_;
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

  void SaySpace(int rank, bool is_full) {
    v1::FromRank message;
    v1::Event& event = *message.mutable_event();
    event.set_kind(v1::EVENT_KIND_CONDITION);
    event.set_message("write shard: no space");
    (*event.mutable_fields())["type"] = "NO_SPACE";
    (*event.mutable_fields())["is_on"] = is_full ? "true" : "false";
    const std::string says = dir_ / absl::StrCat("rank-", rank, "-says");
    EXPECT_THAT(WriteFileAtomic(says, EncodeFrame(message.SerializeAsString())),
                IsOk());
    EXPECT_TRUE(Becomes([&] { return !Exists(says); }));
  }
  // Whether each NO_SPACE that was told was on.
  std::vector<std::string> ToldOfSpace() {
    absl::MutexLock lock(&mutex_);
    return told_of_space_;
  }
  static bool Becomes(const std::function<bool()>& is_so) {
    const absl::Time deadline = absl::Now() + absl::Seconds(5);
    while (!is_so() && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(5));
    }
    return is_so();
  }

  // What a rank was sent, once it was sent `last`, or after a while.
  std::vector<Kind> Sent(int rank, Kind last) {
    std::vector<Kind> sent;
    Becomes([&] {
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
      return !sent.empty() && sent.back() == last;
    });
    return sent;
  }

  const TestDir dir_;
  RankSpawner spawner_;
  WorkerConfig config_;
  std::atomic<int64_t> free_bytes_ = 1 << 20;
  DiskReserve reserve_{{.path = dir_ / "reserve",
                        .bytes = 4096,
                        .free_bytes = [this] { return free_bytes_.load(); }}};
  AttemptHost host_;
  absl::Mutex mutex_;
  std::vector<std::string> told_of_space_ ABSL_GUARDED_BY(mutex_);
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

TEST_F(AttemptRunnerTest, AFullDiskIsToldOnceAndItsReserveIsGivenBack) {
  reserve_.Keep();
  Start();
  ASSERT_THAT(Sent(1, Kind::kStart), ElementsAre(Kind::kStart));
  free_bytes_ = 0;
  for (const int rank : {0, 1}) SaySpace(rank, /*is_full=*/true);
  EXPECT_TRUE(Becomes([&] { return reserve_.is_spent(); }));
  EXPECT_TRUE(Becomes([&] { return !ToldOfSpace().empty(); }));
  EXPECT_THAT(ToldOfSpace(), ElementsAre("true"));

  // Written at the cost of the reserve: there is no room yet.
  for (const int rank : {0, 1}) SaySpace(rank, /*is_full=*/false);
  reserve_.Keep();
  absl::SleepFor(absl::Milliseconds(1500));  // Longer than it looks again.
  EXPECT_THAT(ToldOfSpace(), ElementsAre("true"));

  free_bytes_ = 1 << 20;
  reserve_.Keep();
  EXPECT_TRUE(Becomes([&] { return ToldOfSpace().size() > 1; }));
  EXPECT_THAT(ToldOfSpace(), ElementsAre("true", "false"));
}

}  // namespace
}  // namespace ft
