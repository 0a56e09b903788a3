// SPDX-License-Identifier: Apache-2.0

#include "worker/snapshot_store.h"

#include <sys/stat.h>

#include <cstring>
#include <fstream>

#include "artifact/snapshot_ring.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::HasCode;

constexpr char kJob[] = "job-7q3k0v2m9xwz";

class SnapshotStoreTest : public ::testing::Test {
 protected:
  SnapshotStore Open(int64_t max_bytes = 1 << 20) {
    auto store = SnapshotStore::Open(path_, max_bytes);
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }
  // Two snapshots of one rank, as ft-train makes them.
  void Fill(const std::string& ring) {
    auto opened = SnapshotRing::Open(ring, 100, absl::ZeroDuration());
    FT_ASSERT_OK(opened.status());
    for (const int64_t step : {4, 5}) {
      (*opened)->Begin(step - 1);
      (*opened)->Seal({.epoch = 3, .step = step, .rank = 1, .ranks = 2});
    }
  }
  static std::vector<int64_t> Steps(const std::vector<v1::SnapshotShard>& all) {
    std::vector<int64_t> steps;
    for (const v1::SnapshotShard& shard : all) steps.push_back(shard.step());
    return steps;
  }

  const testing::TestDir dir_;
  const std::string path_ = dir_ / "snapshots";
};

TEST_F(SnapshotStoreTest, TheNextDaemonFindsWhatIsWhole) {
  std::string ring;
  {
    const SnapshotStore store = Open();
    FT_ASSERT_OK_AND_ASSIGN(const auto place, store.PlaceFor(kJob, 1, 1));
    ring = place.ring;
    Fill(ring);
    EXPECT_EQ(Steps(store.Shards()), (std::vector<int64_t>{5, 4}));
  }
  EXPECT_EQ(Steps(Open().Shards(kJob)), (std::vector<int64_t>{5, 4}));
  // Byte 0 of slot 1, which holds step 4: step 5 went to slot 0.
  std::fstream file(ring, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(2 * 4096 + 4096);
  file.put('x');
  file.close();
  const SnapshotStore store = Open();
  ASSERT_EQ(store.Shards(kJob).size(), 1u);
  EXPECT_EQ(store.Shards(kJob)[0].rank(), 1);
  EXPECT_EQ(store.Shards(kJob)[0].epoch(), 3);
  EXPECT_TRUE(store.Shards("job-other").empty());
}

TEST_F(SnapshotStoreTest, RanksShareWhatOtherJobsLeave) {
  const SnapshotStore store = Open(100'000);
  FT_ASSERT_OK_AND_ASSIGN(const auto first, store.PlaceFor(kJob, 0, 2));
  EXPECT_EQ(first.bytes, 50'000);
  FT_ASSERT_OK_AND_ASSIGN(const auto second, store.PlaceFor(kJob, 1, 2));
  Fill(second.ring);
  // Its own ring is used again.
  EXPECT_EQ(store.PlaceFor(kJob, 1, 2)->bytes, 50'000);
  EXPECT_EQ(store.PlaceFor("job-other", 0, 1)->bytes,
            100'000 - SnapshotRing::FileBytes(100));
}

TEST_F(SnapshotStoreTest, AJobThatLeavesTakesItsRingsWithIt) {
  const SnapshotStore store = Open();
  Fill(store.PlaceFor(kJob, 0, 1)->ring);
  Fill(store.PlaceFor("job-other", 0, 1)->ring);
  store.Drop(kJob);
  store.Drop("job-never-here");
  EXPECT_EQ(store.Jobs(), std::vector<std::string>{"job-other"});
  store.DropAll();
  EXPECT_FALSE(Exists(path_));
}

TEST_F(SnapshotStoreTest, WhatIsNoJobIsSwept) {
  Open();
  FT_ASSERT_OK(WriteFileAtomic(path_ + "/core.1234", "x"));
  FT_ASSERT_OK(MakeDirs(path_ + "/job-empty"));
  FT_ASSERT_OK(WriteFileAtomic(path_ + "/job-empty/rank-0", "half"));
  const SnapshotStore store = Open();
  EXPECT_FALSE(Exists(path_ + "/core.1234"));
  EXPECT_TRUE(store.Shards().empty());
}

TEST_F(SnapshotStoreTest, APlaceThatSomebodyElsePreparedIsRefused) {
  ASSERT_EQ(symlink(dir_.path().c_str(), path_.c_str()), 0);
  EXPECT_THAT(SnapshotStore::Open(path_, 1).status(),
              HasCode(absl::StatusCode::kFailedPrecondition));
}

TEST_F(SnapshotStoreTest, NobodyElseMayRead) {
  FT_ASSERT_OK(MakeDirs(path_, 0755));
  Open();
  struct stat info = {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST(DefaultSnapshotDirTest, EachDataFolderHasItsOwn) {
  const testing::TestDir dir;
  EXPECT_EQ(DefaultSnapshotDir(dir.path()),
            DefaultSnapshotDir(dir.path() + "/."));
  EXPECT_NE(DefaultSnapshotDir("/nowhere/a"), DefaultSnapshotDir("/nowhere/b"));
}

}  // namespace
}  // namespace ft
