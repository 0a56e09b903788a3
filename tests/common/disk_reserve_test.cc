// SPDX-License-Identifier: Apache-2.0
//
// A reserve is real room, is given back once, and comes again only where there
// is room enough to stay.

#include "common/disk_reserve.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/no_space.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::FaultEnv;
using testing::IsOk;
using testing::TestDir;

constexpr int64_t kReserve = 64 << 10;

class DiskReserveTest : public ::testing::Test {
 protected:
  DiskReserve NewReserve(int64_t bytes = kReserve) {
    return DiskReserve({.path = path_, .bytes = bytes, .free_bytes = [this] {
                          return disk_.room();
                        }});
  }
  // What a program writes into a file of its own.
  absl::Status Write(int64_t bytes) {
    return WriteFileAtomic(dir_ / "file", std::string(bytes, 'x'));
  }

  const TestDir dir_;
  const std::string path_ = dir_ / "reserve";
  FaultEnv disk_{dir_.path()};
};

TEST_F(DiskReserveTest, ItHoldsBlocks) {
  DiskReserve reserve = NewReserve();
  reserve.Keep();
  EXPECT_EQ(reserve.kept_bytes(), kReserve);
  struct stat info{};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_GE(info.st_blocks * 512, kReserve);
}

TEST_F(DiskReserveTest, WhatMustBeWrittenToAFullDiskFindsItsRoom) {
  disk_.SetRoom(2 * kReserve);
  DiskReserve reserve = NewReserve();
  reserve.Keep();
  EXPECT_TRUE(IsNoSpace(Write(kReserve + 1)));
  ASSERT_THAT(RemoveTemporaries(dir_ / "file"), IsOk());
  disk_.SetRoom(0);

  EXPECT_TRUE(IsNoSpace(Write(1)));
  reserve.Release();
  EXPECT_TRUE(reserve.is_spent());
  EXPECT_EQ(reserve.kept_bytes(), 0);
  EXPECT_THAT(Write(kReserve), IsOk());
}

TEST_F(DiskReserveTest, ItComesBackWhereTwiceItsRoomIs) {
  DiskReserve reserve = NewReserve();
  reserve.Keep();
  disk_.SetRoom(0);
  reserve.Release();
  for (const int64_t room : {int64_t{0}, kReserve, 2 * kReserve - 1}) {
    disk_.SetRoom(room);
    reserve.Keep();
    EXPECT_TRUE(reserve.is_spent()) << room;
    EXPECT_FALSE(Exists(path_)) << room;
  }
  disk_.SetRoom(2 * kReserve);
  reserve.Keep();
  EXPECT_FALSE(reserve.is_spent());
  EXPECT_EQ(reserve.kept_bytes(), kReserve);
  EXPECT_EQ(disk_.room(), kReserve);
}

TEST_F(DiskReserveTest, ADiskThatWasAlwaysTooSmallIsNotCalledFull) {
  disk_.SetRoom(kReserve);
  DiskReserve reserve = NewReserve();
  reserve.Keep();
  reserve.Release();
  EXPECT_FALSE(reserve.is_spent());
  EXPECT_EQ(disk_.room(), kReserve);
}

TEST_F(DiskReserveTest, TheFileOfTheProcessBeforeIsTakenOver) {
  {
    DiskReserve before = NewReserve();
    before.Keep();
  }
  disk_.SetRoom(1);  // One byte, so that it is the room that is short.
  DiskReserve reserve = NewReserve();
  reserve.Keep();
  EXPECT_EQ(reserve.kept_bytes(), kReserve);

  DiskReserve none = NewReserve(/*bytes=*/0);
  none.Keep();
  EXPECT_EQ(none.kept_bytes(), 0);
  EXPECT_FALSE(Exists(path_));
}

TEST_F(DiskReserveTest, RoomThatGoesWhileItIsTakenLeavesNothingBehind) {
  DiskReserve reserve({.path = path_, .bytes = kReserve, .free_bytes = [] {
                         return int64_t{1} << 40;
                       }});
  disk_.SetRoom(kReserve - 1);
  reserve.Keep();
  EXPECT_EQ(reserve.kept_bytes(), 0);
  EXPECT_FALSE(Exists(path_));
}

}  // namespace
}  // namespace ft
