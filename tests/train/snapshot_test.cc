// SPDX-License-Identifier: Apache-2.0
//
// A run that dies goes on from its local snapshots: at most one step is taken
// again, and the result has the same bits.

#include "train/snapshot.h"

#include <fstream>

#include "tests/testing/status_matchers.h"
#include "tests/train/tiny_job.h"

namespace ft {
namespace {

using ::testing::HasSubstr;
using testing::RingOf;
using testing::RunTiny;
using testing::TinyOptions;
using testing::TinyRun;
using testing::TinySpec;

class SnapshotTest : public ::testing::Test {
 protected:
  static void ExpectOk(const TinyRun& run) {
    for (const RunOutcome& outcome : run.outcomes) {
      EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    }
  }
  // Runs until the step and dies.
  std::string Cut(const v1::JobSpec& spec, const std::string& name, int world,
                  int64_t step) {
    const std::string path = dir_ / name;
    const TinyRun run = RunTiny(
        spec, path, {.world = world, .stop_at = step, .has_snapshots = true});
    for (const RunOutcome& outcome : run.outcomes) {
      EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled);
    }
    return path;
  }
  // The steps that every ring holds, the newest first.
  static std::vector<int64_t> CommonSteps(const std::string& path, int world) {
    std::vector<int64_t> common;
    const std::vector<SnapshotSeal> seals =
        ReadSnapshotSeals(RingOf(path, 0)).value();
    for (const SnapshotSeal& seal : seals) {
      bool is_everywhere = true;
      for (int rank = 1; rank < world; ++rank) {
        bool is_here = false;
        const std::vector<SnapshotSeal> others =
            ReadSnapshotSeals(RingOf(path, rank)).value();
        for (const SnapshotSeal& other : others) {
          is_here |= other.step == seal.step;
        }
        is_everywhere &= is_here;
      }
      if (is_everywhere) common.push_back(seal.step);
    }
    return common;
  }
  static void FlipByteOf(const std::string& ring, int64_t step) {
    const int64_t slot = (FileSize(ring).value() - 2 * 4096) / 2;
    std::fstream file(ring, std::ios::in | std::ios::out | std::ios::binary);
    for (int i = 0; i < 2; ++i) {
      // The step is the third word of the seal in page i.
      int64_t found = 0;
      file.seekg(i * 4096 + 16);
      file.read(reinterpret_cast<char*>(&found), sizeof(found));
      if (found != step) continue;
      const int64_t at = 2 * 4096 + i * slot + slot / 2;
      file.seekg(at);
      const char byte = static_cast<char>(file.get() ^ 4);
      file.seekp(at);
      file.put(byte);
    }
  }

  testing::TestDir dir_;
};

TEST_F(SnapshotTest, ARunThatDiedGoesOnToTheSameBits) {
  for (const int zero_stage : {0, 1, 2, 3}) {
    v1::JobSpec spec = TinySpec(2);
    spec.mutable_parallelism()->set_zero_stage(zero_stage);
    const std::string stage = std::to_string(zero_stage);
    const TinyRun whole = RunTiny(spec, dir_ / ("whole" + stage), {.world = 2});
    for (const int world : {1, 2}) {
      const std::string path =
          Cut(spec, "cut" + stage + std::to_string(world), world, 4);
      const std::vector<int64_t> steps = CommonSteps(path, world);
      ASSERT_FALSE(steps.empty());
      EXPECT_GE(steps[0], 2);
      EXPECT_LE(steps[0], 3);
      const TinyRun rest = RunTiny(spec, path,
                                   {.world = world,
                                    .has_snapshots = true,
                                    .source_snapshot_steps = steps});
      ExpectOk(rest);
      EXPECT_EQ(rest.links[0]->ready.completed_steps(), steps[0]);
      EXPECT_EQ(rest.links[0]->events[0].fields().at("source"), "snapshot");
      EXPECT_TRUE(rest.AdapterBytes() == whole.AdapterBytes());
    }
  }
}

TEST_F(SnapshotTest, ARottenSnapshotIsNamedAndTheOlderOneIsUsed) {
  const TinyRun whole = RunTiny(TinySpec(2), dir_ / "whole", {.world = 2});
  const std::string path = Cut(TinySpec(2), "cut", 2, 5);
  const std::vector<int64_t> steps = CommonSteps(path, 2);
  ASSERT_EQ(steps.size(), 2u);
  // At one rank only: the others must not go on from it either.
  FlipByteOf(RingOf(path, 1), steps[0]);
  const TinyOptions again{
      .world = 2, .has_snapshots = true, .source_snapshot_steps = steps};
  const TinyRun rest = RunTiny(TinySpec(2), path, again);
  ExpectOk(rest);
  EXPECT_EQ(rest.links[0]->ready.completed_steps(), steps[1]);
  ASSERT_FALSE(rest.links[1]->events.empty());
  EXPECT_THAT(rest.links[1]->events[0].message(), HasSubstr("sha256"));
  EXPECT_TRUE(rest.AdapterBytes() == whole.AdapterBytes());
}

TEST_F(SnapshotTest, WithoutAWholeSnapshotTheAttemptEndsWithDataLoss) {
  const std::string path = Cut(TinySpec(2), "cut", 2, 4);
  const std::vector<int64_t> steps = CommonSteps(path, 2);
  for (const int64_t step : steps) FlipByteOf(RingOf(path, 0), step);
  const TinyRun rest = RunTiny(
      TinySpec(2), path,
      {.world = 2, .has_snapshots = true, .source_snapshot_steps = steps});
  for (const RunOutcome& outcome : rest.outcomes) {
    EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDataLoss)
        << outcome.status;
  }
}

TEST_F(SnapshotTest, ASnapshotOfOtherDataIsNotUsed) {
  const std::string path = Cut(TinySpec(1), "cut", 1, 3);
  v1::JobSpec other = TinySpec(1);
  other.mutable_determinism()->set_seed(43);
  const TinyRun rest = RunTiny(
      other, path,
      {.has_snapshots = true, .source_snapshot_steps = CommonSteps(path, 1)});
  EXPECT_EQ(rest.outcomes[0].status.code(), absl::StatusCode::kDataLoss);
}

TEST_F(SnapshotTest, WithoutRoomThereAreNoneAndTheJobSaysSo) {
  const TinyRun run =
      RunTiny(TinySpec(2), dir_ / "a",
              {.world = 2, .has_snapshots = true, .snapshot_bytes = 1000});
  ExpectOk(run);
  for (const auto& link : run.links) {
    ASSERT_FALSE(link->events.empty());
    EXPECT_THAT(link->events[0].message(), HasSubstr("--snapshot_size"));
    EXPECT_TRUE(link->sealed_steps.empty());
  }
}

TEST_F(SnapshotTest, TheyAreTakenAsOftenAsTheJobSays) {
  v1::JobSpec spec = TinySpec(1);
  spec.mutable_checkpointing()->set_snapshot_every_steps(2);
  const TinyRun run = RunTiny(spec, dir_ / "a", {.has_snapshots = true});
  ExpectOk(run);
  ASSERT_FALSE(run.links[0]->sealed_steps.empty());
  double seconds = 0;
  for (const v1::StepMetrics& step : run.links[0]->steps) {
    if (step.has_eval_loss()) continue;
    seconds += step.snapshot_seconds();
    if (step.step() % 2 != 0) {
      EXPECT_EQ(step.snapshot_seconds(), 0);
    }
  }
  EXPECT_GT(seconds, 0);
  for (const int64_t step : run.links[0]->sealed_steps) EXPECT_EQ(step % 2, 0);
}

TEST_F(SnapshotTest, ARunFromTheBeginningForgetsWhatIsInTheRing) {
  const std::string path = Cut(TinySpec(1), "cut", 1, 4);
  const TinyRun run =
      RunTiny(TinySpec(1), path, {.yield_at = 1, .has_snapshots = true});
  ExpectOk(run);
  EXPECT_EQ(CommonSteps(path, 1), std::vector<int64_t>{1});
}

}  // namespace
}  // namespace ft
