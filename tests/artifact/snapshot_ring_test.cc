// SPDX-License-Identifier: Apache-2.0
//
// Whenever a writer dies, one whole snapshot is in the ring; what is not whole
// is never read.

#include "artifact/snapshot_ring.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::Fails;
using testing::HasCode;

constexpr int64_t kBytes = 10'000;

class SnapshotRingTest : public ::testing::Test {
 protected:
  std::unique_ptr<SnapshotRing> Open() {
    auto ring = SnapshotRing::Open(path_, kBytes, absl::ZeroDuration());
    EXPECT_TRUE(ring.ok()) << ring.status();
    return *std::move(ring);
  }
  static void Write(SnapshotRing& ring, int64_t step, int64_t kept) {
    const std::span<std::byte> payload = ring.Begin(kept);
    ASSERT_GE(payload.size(), kBytes);
    std::memset(payload.data(), static_cast<int>(step), kBytes);
    ring.Seal({.epoch = 7, .step = step, .rank = 1, .ranks = 2});
  }
  static std::vector<int64_t> Steps(const std::vector<SnapshotSeal>& seals) {
    std::vector<int64_t> steps;
    for (const SnapshotSeal& seal : seals) steps.push_back(seal.step);
    return steps;
  }
  void Flip(int64_t at) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(at);
    file.put(byte);
  }

  const testing::TestDir dir_;
  const std::string path_ = dir_ / "rank-0";
};

TEST_F(SnapshotRingTest, TheLastTwoAreThereForTheNextProcess) {
  {
    const auto ring = Open();
    EXPECT_TRUE(ring->Seals().empty());
    Write(*ring, 1, 0);
    Write(*ring, 2, 1);
    Write(*ring, 3, 2);
  }
  const auto ring = Open();
  EXPECT_EQ(Steps(ring->Seals()), (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(Steps(ReadSnapshotSeals(path_).value()),
            (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(ring->Seals()[0].epoch, 7);
  EXPECT_EQ(ring->Seals()[0].rank, 1);
  EXPECT_EQ(ring->Seals()[0].ranks, 2);
  for (const int64_t step : {2, 3}) {
    FT_ASSERT_OK_AND_ASSIGN(const auto payload, ring->Read(step));
    EXPECT_EQ(payload[0], std::byte(step));
    EXPECT_EQ(payload[kBytes - 1], std::byte(step));
  }
  EXPECT_THAT(ring->Read(1).status(), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(SnapshotRingTest, TheKeptStepIsNotOverwritten) {
  const auto ring = Open();
  Write(*ring, 5, 0);
  Write(*ring, 6, 5);
  // The gang went back to step 5: step 6 goes.
  Write(*ring, 6, 5);
  EXPECT_EQ(Steps(ring->Seals()), (std::vector<int64_t>{6, 5}));
  ring->KeepOnly(5);
  EXPECT_EQ(Steps(ring->Seals()), (std::vector<int64_t>{5}));
}

TEST_F(SnapshotRingTest, AWriterThatIsKilledLeavesTheOtherSnapshotWhole) {
  {
    const auto ring = Open();
    Write(*ring, 1, 0);
    Write(*ring, 2, 1);
  }
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    auto ring = SnapshotRing::Open(path_, kBytes, absl::ZeroDuration());
    if (!ring.ok()) _exit(1);
    std::memset((*ring)->Begin(2).data(), 3, kBytes / 2);
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFSIGNALED(status));
  const auto ring = Open();  // And its lock is gone.
  EXPECT_EQ(Steps(ring->Seals()), (std::vector<int64_t>{2}));
  FT_EXPECT_OK(ring->Read(2).status());
}

TEST_F(SnapshotRingTest, AFlippedBitAnywhereIsFound) {
  Write(*Open(), 1, 0);
  const int64_t size = static_cast<int64_t>(Open()->Begin(1).size());
  // In the payload: its first and last byte, and the slack of the last page.
  for (const int64_t at : {int64_t{0}, kBytes - 1, size - 1}) {
    Flip(2 * 4096 + at);
    EXPECT_THAT(Open()->Read(1).status(),
                Fails(absl::StatusCode::kDataLoss, "sha256"));
    Flip(2 * 4096 + at);
    FT_EXPECT_OK(Open()->Read(1).status());
  }
  // In the seal: it is none any more.
  for (int64_t at = 0; at < 108; ++at) {
    Flip(at);
    EXPECT_TRUE(ReadSnapshotSeals(path_).value().empty()) << at;
    Flip(at);
  }
  EXPECT_EQ(VerifySnapshots(path_, absl::ZeroDuration()).value(), 0);
  Flip(2 * 4096);
  EXPECT_EQ(VerifySnapshots(path_, absl::ZeroDuration()).value(), 1);
  EXPECT_TRUE(ReadSnapshotSeals(path_).value().empty());
}

TEST_F(SnapshotRingTest, OneProcessHoldsItAtATime) {
  const auto ring = Open();
  EXPECT_THAT(
      SnapshotRing::Open(path_, kBytes, absl::Milliseconds(20)).status(),
      HasCode(absl::StatusCode::kUnavailable));
  EXPECT_THAT(VerifySnapshots(path_, absl::ZeroDuration()).status(),
              HasCode(absl::StatusCode::kUnavailable));
}

TEST_F(SnapshotRingTest, ARingOfAnotherSizeIsEmptied) {
  Write(*Open(), 1, 0);
  FT_ASSERT_OK_AND_ASSIGN(
      const auto ring,
      SnapshotRing::Open(path_, 3 * kBytes, absl::ZeroDuration()));
  EXPECT_TRUE(ring->Seals().empty());
  EXPECT_EQ(FileSize(path_).value(), SnapshotRing::FileBytes(3 * kBytes));
}

}  // namespace
}  // namespace ft
