// SPDX-License-Identifier: Apache-2.0
//
// Whole runs on tiny_chat: it learns, and the adapter is the same to the bit on
// one, two and four ranks, resumed or not.

#include "train/run.h"

#include <cmath>

#include "tests/testing/status_matchers.h"
#include "tests/train/tiny_job.h"
#include "train/checkpoint.h"

namespace ft {
namespace {

using testing::RunTiny;
using testing::TinyRun;
using testing::TinySpec;

class RunTest : public ::testing::Test {
 protected:
  testing::TestDir dir_;
};

void ExpectOk(const TinyRun& run) {
  for (const RunOutcome& outcome : run.outcomes) {
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  }
}

std::vector<double> Losses(const TinyRun& run) {
  std::vector<double> losses;
  for (const v1::StepMetrics& step : run.links[0]->steps) {
    losses.push_back(step.has_eval_loss() ? step.eval_loss() : step.loss());
  }
  return losses;
}

TEST_F(RunTest, AJobLearnsTellsItsProgressAndExportsAnAdapter) {
  const TinyRun run = RunTiny(TinySpec(1), dir_ / "a", {});
  ExpectOk(run);
  const auto& steps = run.links[0]->steps;
  ASSERT_GT(steps.size(), 6u);
  EXPECT_LT(steps[steps.size() - 2].loss(), steps[0].loss() - 0.3);
  EXPECT_EQ(steps.back().step(), steps.back().total_steps());
  EXPECT_TRUE(steps.back().has_eval_loss());
  EXPECT_EQ(steps[0].learning_rate(), 0);  // Warm-up begins at 0.
  EXPECT_EQ(run.outcomes[0].last_step, steps.back().total_steps());
  EXPECT_EQ(run.links[0]->exported.files_size(), 2);
  EXPECT_TRUE(Exists(dir_ / "a/export/adapter_config.json"));
}

TEST_F(RunTest, OneTwoAndFourRanksGiveTheSameAdapterToTheBit) {
  const TinyRun one = RunTiny(TinySpec(4), dir_ / "1", {.world = 1});
  const TinyRun two = RunTiny(TinySpec(4), dir_ / "2", {.world = 2});
  const TinyRun four = RunTiny(TinySpec(4), dir_ / "4", {.world = 4});
  for (const TinyRun* run : {&one, &two, &four}) ExpectOk(*run);
  EXPECT_EQ(Losses(two), Losses(one));
  EXPECT_EQ(Losses(four), Losses(one));
  EXPECT_TRUE(two.AdapterBytes() == one.AdapterBytes());
  EXPECT_TRUE(four.AdapterBytes() == one.AdapterBytes());
}

TEST_F(RunTest, StateIsTheLayoutsShardInBytes) {
  const TinyRun one = RunTiny(TinySpec(2), dir_ / "1", {.world = 1});
  const TinyRun two = RunTiny(TinySpec(2), dir_ / "2", {.world = 2});
  const int64_t whole = one.links[0]->ready.optimizer_state_bytes();
  for (const auto& link : two.links) {
    EXPECT_NEAR(link->ready.optimizer_state_bytes(), whole / 2, 8 * 1024);
  }
}

TEST_F(RunTest, AYieldedRunContinuesToTheSameBitsAlsoOnOtherRanks) {
  const TinyRun whole = RunTiny(TinySpec(2), dir_ / "whole", {.world = 2});
  for (const int world : {1, 2}) {
    const std::string path = dir_ / ("cut" + std::to_string(world));
    const TinyRun first =
        RunTiny(TinySpec(2), path, {.world = 2, .yield_at = 4});
    ExpectOk(first);
    EXPECT_TRUE(first.outcomes[0].yielded);
    EXPECT_TRUE(first.outcomes[1].yielded);
    EXPECT_EQ(first.outcomes[0].last_step, 4);
    const TinyRun rest =
        RunTiny(TinySpec(2), path, {.world = world, .resume = true});
    ExpectOk(rest);
    EXPECT_EQ(rest.links[0]->ready.completed_steps(), 4);
    EXPECT_TRUE(rest.AdapterBytes() == whole.AdapterBytes());
  }
}

TEST_F(RunTest, RegroupingMicroAndLanesAgreesToRounding) {
  v1::JobSpec spec = TinySpec(1);
  spec.mutable_adaptation()->mutable_lora()->set_dropout(0);
  const TinyRun base = RunTiny(spec, dir_ / "a", {});
  spec.mutable_batch()->set_micro(4);
  const TinyRun micro = RunTiny(spec, dir_ / "b", {});
  spec.mutable_determinism()->set_lanes(3);
  const TinyRun lanes = RunTiny(spec, dir_ / "c", {.world = 3});
  spec.mutable_data()->set_packing(false);
  const TinyRun unpacked = RunTiny(spec, dir_ / "d", {.world = 1});
  for (const TinyRun* run : {&micro, &lanes, &unpacked}) {
    ExpectOk(*run);
    ASSERT_EQ(Losses(*run).size(), Losses(base).size());
    EXPECT_NEAR(Losses(*run)[0], Losses(base)[0], 1e-6 * Losses(base)[0]);
    for (size_t i = 0; i < Losses(base).size(); ++i) {
      EXPECT_NEAR(Losses(*run)[i], Losses(base)[i], 2e-4);
    }
  }
}

TEST_F(RunTest, ARottenCheckpointIsNamedAndTheOneBeforeIsUsed) {
  v1::JobSpec spec = TinySpec(1);
  spec.mutable_checkpointing()->mutable_every()->set_steps(2);
  const TinyRun whole = RunTiny(spec, dir_ / "whole", {});
  const TinyRun cut = RunTiny(spec, dir_ / "cut", {.yield_at = 4});
  ExpectOk(cut);
  const std::string shard =
      dir_ / "cut/checkpoints/step-000004/shard-00000-of-00001.safetensors";
  std::string bytes = ReadFile(shard, 1 << 24).value();
  bytes[bytes.size() / 2] ^= 1;
  FT_ASSERT_OK(WriteFileAtomic(shard, bytes));
  const TinyRun rest = RunTiny(spec, dir_ / "cut", {.resume = true});
  ExpectOk(rest);
  ASSERT_EQ(rest.links[0]->events.size(), 2u);
  EXPECT_THAT(rest.links[0]->events[0].message(),
              ::testing::HasSubstr("sha256"));
  EXPECT_EQ(rest.links[0]->ready.completed_steps(), 2);
  EXPECT_TRUE(rest.AdapterBytes() == whole.AdapterBytes());
}

TEST_F(RunTest, OtherDataOrSeedCannotContinueACheckpoint) {
  RunTiny(TinySpec(1), dir_ / "a", {.yield_at = 2});
  v1::JobSpec other = TinySpec(1);
  other.mutable_determinism()->set_seed(43);
  const TinyRun rest = RunTiny(other, dir_ / "a", {.resume = true});
  EXPECT_EQ(rest.outcomes[0].status.code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(RunTest, ANonFiniteStepStopsBeforeAnyParameterChanges) {
  v1::JobSpec spec = TinySpec(1);
  spec.mutable_schedule()->set_learning_rate(1e30);
  spec.mutable_batch()->set_max_grad_norm(0);
  const TinyRun run = RunTiny(spec, dir_ / "a", {});
  EXPECT_FALSE(run.outcomes[0].status.ok());
  EXPECT_TRUE(run.outcomes[0].non_finite);
}

}  // namespace
}  // namespace ft
