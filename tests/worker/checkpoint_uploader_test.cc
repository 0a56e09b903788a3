// SPDX-License-Identifier: Apache-2.0

#include "worker/checkpoint_uploader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::TestDir;

// A coordinator that keeps what it is sent; shards are named by their digests.
class CheckpointUploaderTest : public ::testing::Test {
 protected:
  void Start(absl::Duration shard_timeout = absl::InfiniteDuration()) {
    uploader_ = std::make_unique<CheckpointUploader>(
        CheckpointUploader::Options{.dir = dir_ / "uploads",
                                    .poll = absl::Milliseconds(1),
                                    .shard_timeout = shard_timeout,
                                    .pause = absl::Milliseconds(1)},
        CheckpointUploader::Host{
            .upload = [this](const std::string& path,
                             const std::string& sha256) -> absl::Status {
              FT_RETURN_IF_ERROR(ReadFile(path, 100).status());
              Store(sha256);
              absl::MutexLock lock(&mutex_);
              return std::exchange(next_answer_, absl::OkStatus());
            },
            .find_missing =
                [this](const std::vector<std::string>& sha256) {
                  absl::MutexLock lock(&mutex_);
                  ++looks_;
                  std::vector<std::string> missing;
                  for (const std::string& digest : sha256) {
                    if (!stored_.contains(digest)) missing.push_back(digest);
                  }
                  return absl::StatusOr<std::vector<std::string>>(missing);
                },
            .commit =
                [this](const v1::Manifest& manifest) {
                  absl::MutexLock lock(&mutex_);
                  committed_.push_back(manifest.step());
                  return absl::OkStatus();
                },
            .is_passing = absl::IsUnavailable,
            .note = [](const absl::Status&) {},
            .give_up =
                [this](int64_t step, const absl::Status& why) {
                  absl::MutexLock lock(&mutex_);
                  given_up_.push_back(absl::StrCat(step, ": ", why.message()));
                },
        });
  }

  void Store(const std::string& sha256) {
    absl::MutexLock lock(&mutex_);
    stored_.insert(sha256);
  }
  void FailNextUpload(absl::Status status) {
    absl::MutexLock lock(&mutex_);
    next_answer_ = std::move(status);
  }
  void AwaitLooks(int count) {
    absl::MutexLock lock(&mutex_);
    const auto has_looked = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return looks_ >= count;
    };
    mutex_.Await(absl::Condition(&has_looked));
  }
  std::vector<int64_t> Committed() {
    absl::MutexLock lock(&mutex_);
    return committed_;
  }
  std::vector<std::string> GivenUp() {
    absl::MutexLock lock(&mutex_);
    return given_up_;
  }

  static std::string ShardOf(int64_t step, int rank) {
    return absl::StrCat("shard-", step, "-", rank);
  }
  // What a rank of `world` says after it has written its shard; the first one
  // knows all of them.
  v1::CheckpointFiles Write(int64_t step, int rank, int world) {
    v1::CheckpointFiles files;
    files.set_step(step);
    files.set_dir(dir_ / absl::StrCat("rank-", rank));
    EXPECT_THAT(MakeDirs(files.dir(), 0700), IsOk());
    const auto fill = [&](v1::LocalFile& file, int of) {
      file.set_path(ShardOf(step, of));
      file.set_sha256(ShardOf(step, of));
    };
    fill(*files.add_own(), rank);
    for (int of = 0; rank == 0 && of < world; ++of) fill(*files.add_all(), of);
    EXPECT_THAT(
        WriteFileAtomic(JoinPath(files.dir(), ShardOf(step, rank)), "bytes"),
        IsOk());
    return files;
  }

  const TestDir dir_;
  absl::Mutex mutex_;
  std::set<std::string> stored_ ABSL_GUARDED_BY(mutex_);
  std::vector<int64_t> committed_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> given_up_ ABSL_GUARDED_BY(mutex_);
  int looks_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status next_answer_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<CheckpointUploader> uploader_;
};

// Ranks of one worker may hand over in any order.
TEST_F(CheckpointUploaderTest, TheFirstRankDoesNotHoldUpAnotherOfItsWorker) {
  Start();
  for (const int64_t step : {4, 8}) {
    uploader_->Add(0, Write(step, 0, 2));
    uploader_->Add(1, Write(step, 1, 2));
  }
  uploader_->AwaitIdle();
  EXPECT_EQ(Committed().back(), 8);
  EXPECT_THAT(GivenUp(), IsEmpty());
}

TEST_F(CheckpointUploaderTest, AShardOfAnotherWorkerIsAwaited) {
  Start();
  uploader_->Add(0, Write(4, 0, 2));
  AwaitLooks(3);
  EXPECT_THAT(Committed(), IsEmpty());
  Store(ShardOf(4, 1));
  uploader_->AwaitIdle();
  EXPECT_THAT(Committed(), ElementsAre(4));
}

TEST_F(CheckpointUploaderTest, OneThatIsNeverWholeDoesNotHoldUpALaterOne) {
  Start();
  uploader_->Add(0, Write(4, 0, 2));
  uploader_->Add(0, Write(8, 0, 2));
  Store(ShardOf(8, 1));
  uploader_->AwaitIdle();
  EXPECT_THAT(Committed(), ElementsAre(8));
  EXPECT_THAT(GivenUp(), IsEmpty());
}

TEST_F(CheckpointUploaderTest, AfterTheTimeItIsSaidThatShardsAreMissing) {
  Start(/*shard_timeout=*/absl::Milliseconds(5));
  uploader_->Add(0, Write(4, 0, 2));
  uploader_->AwaitIdle();
  EXPECT_THAT(Committed(), IsEmpty());
  EXPECT_THAT(GivenUp(),
              ElementsAre(HasSubstr("4: shards were not stored by other")));
}

// Ranks remove all but their newest files, and steps may be short.
TEST_F(CheckpointUploaderTest, WhatTheRankRemovesIsStillStored) {
  Start();
  const v1::CheckpointFiles files = Write(4, 0, 1);
  FailNextUpload(absl::UnavailableError("the coordinator is away"));
  uploader_->Add(0, files);
  ASSERT_THAT(RemoveTree(files.dir()), IsOk());
  uploader_->AwaitIdle();
  EXPECT_THAT(Committed(), ElementsAre(4));
  EXPECT_THAT(ListDir(dir_ / "uploads").value(), IsEmpty());
}

TEST_F(CheckpointUploaderTest, AnErrorThatStaysIsSaidOnce) {
  Start();
  FailNextUpload(absl::DataLossError("another digest"));
  uploader_->Add(0, Write(4, 0, 1));
  uploader_->AwaitIdle();
  EXPECT_THAT(Committed(), IsEmpty());
  EXPECT_THAT(GivenUp(), ElementsAre(HasSubstr("another digest")));
}

TEST_F(CheckpointUploaderTest, StopEndsTheWait) {
  Start();
  uploader_->Add(0, Write(4, 0, 2));
  uploader_->Stop();
  uploader_->AwaitIdle();
  EXPECT_THAT(GivenUp(), IsEmpty());
}

}  // namespace
}  // namespace ft
