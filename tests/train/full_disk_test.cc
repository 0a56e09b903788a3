// SPDX-License-Identifier: Apache-2.0
//
// Runs on a disk that fills up: whoever is told makes room out of a reserve,
// and what the run cannot end without is written all the same.

#include "common/disk_reserve.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/status_matchers.h"
#include "tests/train/tiny_job.h"
#include "train/checkpoint.h"

namespace ft {
namespace {

using testing::FaultEnv;
using testing::RunTiny;
using testing::TinyRows;
using testing::TinyRun;
using testing::TinySpec;

bool IsOn(const v1::Event& event) {
  return event.kind() == v1::EVENT_KIND_CONDITION &&
         event.fields().at("type") == "NO_SPACE" &&
         event.fields().at("is_on") == "true";
}

class FullDiskTest : public ::testing::Test {
 protected:
  // A disk with room for `bytes` beside the rows, and a reserve of as much.
  void Fill(int64_t bytes) {
    disk_.SetRoom(INT64_MAX / 2);
    reserve_.emplace(DiskReserve::Options{
        .path = dir_ / "reserve", .bytes = bytes, .free_bytes = [this] {
          return disk_.room();
        }});
    reserve_->Keep();
    ASSERT_EQ(reserve_->kept_bytes(), bytes);
    disk_.SetRoom(bytes + static_cast<int64_t>(TinyRows().size()));
  }
  // What the daemon does.
  void OnEvent(const v1::Event& event) {
    if (!IsOn(event)) return;
    ++shortages_;
    reserve_->Release();
  }
  static void ExpectOk(const TinyRun& run) {
    for (const RunOutcome& outcome : run.outcomes) {
      EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    }
  }
  // Of all its files.
  static int64_t SizeOf(const v1::CheckpointFiles& checkpoint) {
    int64_t bytes = 0;
    for (const v1::LocalFile& file : checkpoint.all()) bytes += file.bytes();
    return bytes;
  }

  const testing::TestDir dir_;
  FaultEnv disk_{dir_.path()};
  std::optional<DiskReserve> reserve_;
  std::atomic<int> shortages_ = 0;
};

TEST_F(FullDiskTest, TheLastCheckpointIsFinishedFromTheReserve) {
  v1::JobSpec spec = TinySpec(4);
  spec.mutable_checkpointing()->mutable_every()->set_steps(2);
  const TinyRun whole = RunTiny(spec, dir_ / "whole", {.world = 2});
  ExpectOk(whole);
  // The one of step 2, and half of the one of step 4.
  Fill(SizeOf(whole.links[0]->checkpoints[0]) * 3 / 2);
  const TinyRun cut = RunTiny(
      spec, dir_ / "cut",
      {.world = 2, .yield_at = 4, .on_event = [this](const v1::Event& event) {
         OnEvent(event);
       }});
  ExpectOk(cut);
  EXPECT_TRUE(cut.outcomes[0].yielded);
  EXPECT_GE(shortages_, 2) << "both ranks tell";
  ASSERT_EQ(cut.links[0]->checkpoints.size(), 2u);
  EXPECT_EQ(cut.links[0]->checkpoints[1].step(), 4);
  EXPECT_FALSE(IsOn(cut.links[0]->events.back()));

  disk_.SetRoom(INT64_MAX / 2);
  const TinyRun rest =
      RunTiny(spec, dir_ / "cut", {.world = 2, .resume = true});
  ExpectOk(rest);
  EXPECT_EQ(rest.links[0]->ready.completed_steps(), 4);
  EXPECT_TRUE(rest.AdapterBytes() == whole.AdapterBytes());
}

TEST_F(FullDiskTest, TheResultIsFinishedFromTheReserve) {
  const v1::JobSpec spec = TinySpec(1);
  const TinyRun whole = RunTiny(spec, dir_ / "whole", {});
  ExpectOk(whole);
  // Less than the adapter, which fits into the reserve and what is left.
  Fill(static_cast<int64_t>(whole.AdapterBytes().size()) * 3 / 4);
  const TinyRun run =
      RunTiny(spec, dir_ / "full",
              {.on_event = [this](const v1::Event& event) { OnEvent(event); }});
  ExpectOk(run);
  EXPECT_EQ(shortages_, 1);
  EXPECT_TRUE(run.AdapterBytes() == whole.AdapterBytes());
}

// The one before stays whole, and nothing of the new one is left.
TEST_F(FullDiskTest, WithoutRoomTheRunEndsAndItsCheckpointIsTheOneBefore) {
  v1::JobSpec spec = TinySpec(1);
  spec.mutable_checkpointing()->mutable_every()->set_steps(2);
  const TinyRun whole = RunTiny(spec, dir_ / "whole", {});
  Fill(SizeOf(whole.links[0]->checkpoints[0]) * 3 / 2);
  const TinyRun cut = RunTiny(spec, dir_ / "cut", {.yield_at = 4});
  EXPECT_TRUE(absl::IsResourceExhausted(cut.outcomes[0].status))
      << cut.outcomes[0].status;

  disk_.SetRoom(INT64_MAX / 2);
  EXPECT_FALSE(Exists(dir_ / "cut/checkpoints/step-000004"));
  const TinyRun rest = RunTiny(spec, dir_ / "cut", {.resume = true});
  ExpectOk(rest);
  EXPECT_EQ(rest.links[0]->ready.completed_steps(), 2);
  EXPECT_TRUE(rest.AdapterBytes() == whole.AdapterBytes());
}

// Whichever write of a checkpoint finds no room, all ranks learn of it alike.
TEST_F(FullDiskTest, WhereverACheckpointMeetsTheEndOfTheDiskTheRanksAgree) {
  v1::JobSpec spec = TinySpec(2);
  spec.mutable_schedule()->clear_epochs();
  spec.mutable_schedule()->set_steps(3);
  spec.mutable_checkpointing()->mutable_every()->set_steps(2);
  const TinyRun whole = RunTiny(spec, dir_ / "whole", {.world = 2});
  ExpectOk(whole);
  const v1::CheckpointFiles& files = whole.links[0]->checkpoints[0];
  const int64_t json = files.all(files.all_size() - 1).bytes();
  for (const int64_t missing : {int64_t{1}, json, json + 1, SizeOf(files)}) {
    SCOPED_TRACE(missing);
    Fill(SizeOf(files) - missing);
    const TinyRun run =
        RunTiny(spec, dir_ / absl::StrCat("missing-", missing),
                {.world = 2, .on_event = [this](const v1::Event& event) {
                   if (IsOn(event)) disk_.SetRoom(INT64_MAX / 2);
                 }});
    ExpectOk(run);
    EXPECT_TRUE(run.AdapterBytes() == whole.AdapterBytes());
    for (const auto& link : run.links) EXPECT_FALSE(link->events.empty());
    disk_.SetRoom(INT64_MAX / 2);
  }
}

}  // namespace
}  // namespace ft
