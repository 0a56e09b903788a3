// SPDX-License-Identifier: Apache-2.0
//
// A worker whose disk fills up: the job goes on, says so, and ends with the
// bits of a run that nobody disturbed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "tests/integration/tiny_chat.h"
#include "tests/testing/local_cluster.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::IsOk;
using testing::LocalCluster;
using testing::TinyChat;

// Programs started while this lives have the faults of
// tests/testing/fault_preload.cc below `dir`.
class FaultyDisk {
 public:
  explicit FaultyDisk(const std::string& dir) {
    setenv("LD_PRELOAD", FT_TEST_BINARY_DIR "/tests/libft_fault_preload.so", 1);
    setenv("FT_FAULTS_DIR", dir.c_str(), 1);
  }
  ~FaultyDisk() {
    unsetenv("LD_PRELOAD");
    unsetenv("FT_FAULTS_DIR");
  }
};

bool HasNoSpace(const v1::Job& job) {
  for (const v1::Condition& condition : job.status().conditions()) {
    if (condition.type() == "NO_SPACE") return true;
  }
  return false;
}

class DiskTest : public ::testing::Test {
 protected:
  void StartFaultyWorker() {
    const FaultyDisk faulty(cluster_.dir() / "w-1");
    cluster_.StartWorker(1);
  }
  void SetFull(bool is_full) {
    const std::string flag = cluster_.dir() / "full";
    ASSERT_THAT(is_full ? WriteFileAtomic(flag, "") : RemoveFile(flag), IsOk());
  }
  // Full but for what the reserve holds.
  void SetFullButForReserve() {
    ASSERT_THAT(WriteFileAtomic(cluster_.dir() / "full", "reserve"), IsOk());
  }
  bool HasReserve() { return Exists(cluster_.dir() / "w-1/reserve"); }

  LocalCluster cluster_{0};
};

TEST_F(DiskTest, ARunningJobGoesOnWithoutCheckpointsUntilThereIsRoom) {
  constexpr int kSteps = 1500;
  StartFaultyWorker();
  const std::string id = cluster_.Submit(TinyChat(1, kSteps)).job_id();
  const v1::Job before = cluster_.WaitFor(id, [](const v1::Job& job) {
    return job.status().checkpoint_step() > 0;
  });
  SetFull(true);
  const v1::Job full = cluster_.WaitFor(id, HasNoSpace);
  // It trains on meanwhile.
  const v1::Job later = cluster_.WaitFor(id, [&](const v1::Job& job) {
    return job.status().progress().step() >
           full.status().progress().step() + 50;
  });
  SetFull(false);
  const absl::Time freed = absl::Now();
  cluster_.WaitFor(id, [&](const v1::Job& job) {
    return !HasNoSpace(job) &&
           job.status().checkpoint_step() > later.status().checkpoint_step();
  });
  EXPECT_LT(absl::Now() - freed, absl::Seconds(5));
  const v1::Job job = cluster_.WaitForEnd(id);
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.status().attempts_size(), 1);
  EXPECT_EQ(job.status().progress().step(), kSteps);

  const v1::Job quiet =
      cluster_.WaitForEnd(cluster_.Submit(TinyChat(1, kSteps)).job_id());
  EXPECT_EQ(cluster_.Result(job), cluster_.Result(quiet));
}

TEST_F(DiskTest, TheReserveKeepsCheckpointsComingAndComesBackWithTheRoom) {
  constexpr int kSteps = 1500;
  StartFaultyWorker();
  ASSERT_TRUE(HasReserve());
  const std::string id = cluster_.Submit(TinyChat(1, kSteps)).job_id();
  const v1::Job before = cluster_.WaitFor(id, [](const v1::Job& job) {
    return job.status().checkpoint_step() > 0;
  });
  SetFullButForReserve();
  // Whoever meets the full disk first tells it; a rank's word spends the
  // reserve.
  cluster_.WaitFor(
      id, [&](const v1::Job& job) { return HasNoSpace(job) && !HasReserve(); });
  // Still full: what is written is the reserve.
  const v1::Job full = cluster_.WaitFor(id, [&](const v1::Job& job) {
    return job.status().checkpoint_step() >
           before.status().checkpoint_step() + 40;
  });
  EXPECT_TRUE(HasNoSpace(full));
  SetFull(false);
  const absl::Time freed = absl::Now();
  cluster_.WaitFor(id, [&](const v1::Job& job) { return !HasNoSpace(job); });
  EXPECT_LT(absl::Now() - freed, absl::Seconds(5));
  EXPECT_TRUE(HasReserve());
  const v1::Job job = cluster_.WaitForEnd(id);
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.status().attempts_size(), 1);
}

TEST_F(DiskTest, AJobThatFindsNoRoomForItsDataWaitsForIt) {
  StartFaultyWorker();
  SetFull(true);
  const std::string id = cluster_.Submit(TinyChat(1, 20)).job_id();
  cluster_.WaitFor(id, HasNoSpace);
  SetFull(false);
  const v1::Job job = cluster_.WaitForEnd(id);
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_SUCCEEDED)
      << job.status().DebugString();
  EXPECT_EQ(job.status().attempts_size(), 1);
}

}  // namespace
}  // namespace ft
