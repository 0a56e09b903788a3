// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints over a disk that loses power at any system call, and over one
// whose bits rot: the newest whole checkpoint is found, it is at least as new
// as the last that was told, and its bits are those that were written.

#include <ATen/ops/empty.h>

#include <cerrno>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "collective/thread_collective.h"
#include "common/status.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/rank_threads.h"
#include "tests/testing/sizes.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "train/checkpoint.h"

namespace ft {
namespace {

using testing::DiskRecord;
using testing::FaultEnv;
using testing::IsOk;
using testing::OnEveryRank;
using testing::TestDir;
using Loss = DiskRecord::Loss;

constexpr int kRanks = 2;
constexpr int64_t kSteps = 4;

const std::vector<PartitionInput> kTensors = {
    {.name = "a", .shape = {37, 11}, .unit = 0},
    {.name = "b", .shape = {5}, .unit = 0, .decays = false}};

ShardedOptimizer MakeOptimizer(Collective& ranks) {
  return ShardedOptimizer(Partition(kTensors, ranks.size()), {}, ranks);
}

// The parameters of a step have its number in each element.
void Fill(ShardedOptimizer& optimizer, int64_t step) {
  for (size_t t = 0; t < kTensors.size(); ++t) {
    optimizer.ParameterView(t).fill_(static_cast<float>(step));
  }
  optimizer.set_steps(step);
}

// Two ranks write a checkpoint a step and keep two of them. Returns the first
// error of each rank.
std::vector<absl::Status> WriteSteps(const std::string& dir, FaultEnv& env) {
  const auto ranks = MakeThreadCollectives(kRanks, absl::Seconds(5));
  std::vector<absl::Status> statuses(kRanks);
  OnEveryRank(kRanks, [&](int rank) {
    statuses[rank] = [&]() -> absl::Status {
      FT_RETURN_IF_ERROR(MakeDirs(dir, 0700));
      ShardedOptimizer optimizer = MakeOptimizer(*ranks[rank]);
      for (int64_t step = 1; step <= kSteps; ++step) {
        Fill(optimizer, step);
        const CheckpointInfo info{
            .job_id = "job-test", .step = step, .ranks = kRanks};
        FT_RETURN_IF_ERROR(
            WriteCheckpoint(dir, info, optimizer, *ranks[rank]).status());
        if (rank == 0) env.Mark(absl::StrCat(step));
        FT_RETURN_IF_ERROR(RemoveOldCheckpoints(dir, step, /*keep=*/2));
        // As in training, where a step lies between: a rank that is late here
        // would take the next one's folder for an abandoned one.
        FT_RETURN_IF_ERROR(ranks[rank]->Barrier());
      }
      return absl::OkStatus();
    }();
    if (!statuses[rank].ok()) ranks[rank]->Abort(statuses[rank]);
  });
  return statuses;
}

// What a new rank does: the newest that is whole. 0: there is none.
absl::StatusOr<int64_t> LoadNewest(const std::string& dir) {
  const auto alone = MakeThreadCollectives(1);
  ShardedOptimizer optimizer = MakeOptimizer(*alone[0]);
  for (const std::string& path : ListCheckpoints(dir)) {
    const auto info = LoadCheckpoint(path, optimizer);
    if (absl::IsDataLoss(info.status())) continue;
    if (!info.ok()) return info.status();
    for (size_t t = 0; t < kTensors.size(); ++t) {
      const at::Tensor values = optimizer.ParameterView(t);
      const float* value = values.data_ptr<float>();
      for (int64_t i = 0; i < values.numel(); ++i) {
        if (value[i] != static_cast<float>(info->step)) {
          return absl::InternalError(absl::StrCat(path, " has other bits"));
        }
      }
    }
    return info->step;
  }
  return 0;
}

absl::Status CheckNewest(const std::string& dir,
                         const std::vector<std::string>& marks) {
  int64_t told = 0;
  if (!marks.empty() && !absl::SimpleAtoi(marks.back(), &told)) {
    return absl::InternalError(marks.back());
  }
  FT_ASSIGN_OR_RETURN(const int64_t found, LoadNewest(dir));
  if (found >= told) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("step ", told, " was told, ", found, " is found"));
}

DiskRecord RecordSteps() {
  const TestDir dir;
  FaultEnv env(dir.path());
  for (const absl::Status& status : WriteSteps(dir / "checkpoints", env)) {
    EXPECT_THAT(status, IsOk());
  }
  return env.TakeRecord();
}

absl::Status LosePower(const DiskRecord& record, size_t end, Loss loss,
                       uint32_t seed) {
  const TestDir dir;
  std::mt19937 random(seed);
  record.MakeAfterPowerLoss(end, loss, random, dir.path());
  return CheckNewest(dir / "checkpoints", record.MarksBefore(end));
}

int Losses(int by_default) {
  return testing::SizeFrom("FT_POWER_LOSSES", by_default);
}

TEST(CheckpointPowerLossTest, AtEverySystemCallTheNewestToldIsFound) {
  const DiskRecord record = RecordSteps();
  ASSERT_GT(record.size(), 100u);
  for (size_t end = 0; end <= record.size(); ++end) {
    for (const Loss loss :
         {Loss::kEverything, Loss::kNothing, Loss::kData, Loss::kNames}) {
      ASSERT_THAT(LosePower(record, end, loss, 0), IsOk())
          << "call " << end << ", loss " << static_cast<int>(loss);
    }
  }
}

TEST(CheckpointPowerLossTest, WhateverIsTornAndReorderedTheNewestToldIsFound) {
  const DiskRecord record = RecordSteps();
  for (int seed = 1; seed <= Losses(500); ++seed) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    const size_t end = random() % (record.size() + 1);
    ASSERT_THAT(LosePower(record, end, Loss::kRandom, random()), IsOk())
        << "seed " << seed;
  }
}

TEST(CheckpointPowerLossTest, ADiskThatOnlySaysItSyncedIsFound) {
  const DiskRecord honest = RecordSteps();
  DiskRecord lying;
  for (const DiskRecord::Op& op : honest.ops()) {
    if (op.kind != DiskRecord::Op::Kind::kSync) lying.Add(op);
  }
  EXPECT_FALSE(LosePower(lying, lying.size(), Loss::kData, 0).ok());
}

TEST(CheckpointErrorTest, AnErrorOfAnyCallIsToldAndTheNewestIsThere) {
  bool came = true;
  for (int64_t k = 1; came; k += 3) {
    const TestDir dir;
    FaultEnv env(dir.path());
    env.FailCall(k, k % 2 == 0 ? EIO : ENOSPC);
    const auto statuses = WriteSteps(dir / "checkpoints", env);
    came = env.has_failed();
    const DiskRecord record = env.TakeRecord();
    ASSERT_THAT(
        CheckNewest(dir / "checkpoints", record.MarksBefore(record.size())),
        IsOk())
        << "call " << k;
  }
}

// Every flip of a bit in any file of the newest checkpoint, and every cut, is
// found, and the one before is used.
TEST(CheckpointRotTest, EachFlippedBitAndEachCutIsFound) {
  const TestDir dir;
  {
    FaultEnv env(dir.path());
    for (const absl::Status& status : WriteSteps(dir / "checkpoints", env)) {
      FT_ASSERT_OK(status);
    }
  }
  const std::string newest = ListCheckpoints(dir / "checkpoints").at(0);
  std::mt19937 random(7);
  const auto names = ListDir(newest).value();
  ASSERT_EQ(names.size(), 3u);
  for (int i = 0; i < Losses(400); ++i) {
    const std::string path = JoinPath(newest, names[i % names.size()]);
    const std::string whole = ReadFile(path, 1 << 24).value();
    std::string rotten = whole;
    const size_t at = random() % whole.size();
    rotten[at] ^= static_cast<char>(1 << random() % 8);
    FT_ASSERT_OK(WriteFileAtomic(path, rotten));
    // White space between the tokens of checkpoint.json may stay white space.
    const bool is_blank = whole[at] == ' ' || whole[at] == '\n';
    const int64_t found = LoadNewest(dir / "checkpoints").value();
    ASSERT_TRUE(found == kSteps - 1 || (is_blank && found == kSteps))
        << path << " at " << at;
    FT_ASSERT_OK(WriteFileAtomic(path, whole));
  }
  for (const std::string& name : names) {
    const std::string path = JoinPath(newest, name);
    const std::string whole = ReadFile(path, 1 << 24).value();
    for (size_t size = 0; size < whole.size(); size += 4096) {
      FT_ASSERT_OK(WriteFileAtomic(path, whole.substr(0, size)));
      ASSERT_EQ(LoadNewest(dir / "checkpoints").value(), kSteps - 1)
          << path << " cut at " << size;
    }
    FT_ASSERT_OK(WriteFileAtomic(path, whole));
  }
  EXPECT_EQ(LoadNewest(dir / "checkpoints").value(), kSteps);
}

}  // namespace
}  // namespace ft
