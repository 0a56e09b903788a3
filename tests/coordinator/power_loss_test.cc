// SPDX-License-Identifier: Apache-2.0
//
// The store and the blobs over a disk that loses power, fails and fills up. The
// real core decides, every decision is committed, and what is told then is
// noted; after the fault a new process must find all of it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/digest.h"
#include "common/status.h"
#include "common/token.h"
#include "coordinator/blob_files.h"
#include "coordinator/sqlite_job_store.h"
#include "tests/coordinator/store_history.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/sizes.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::DiskRecord;
using testing::FaultEnv;
using testing::HasCode;
using testing::History;
using testing::IsOk;
using testing::TestDir;
using Loss = DiskRecord::Loss;

// --- What a new process must find --------------------------------------------

absl::Status Violated(absl::string_view what) {
  return absl::DataLossError(what);
}

absl::Status CheckIntegrity(const std::string& path) {
  FT_ASSIGN_OR_RETURN(const auto db, SqliteDb::Open(path, {.read_only = true}));
  FT_ASSIGN_OR_RETURN(SqlStatement check,
                      db->Prepare("PRAGMA integrity_check"));
  FT_RETURN_IF_ERROR(check.Step().status());
  if (check.BytesAt(0) != "ok") return Violated(check.BytesAt(0));
  return absl::OkStatus();
}

// I4: a blob is what its name says.
absl::Status CheckBlobs(const std::string& dir) {
  FT_ASSIGN_OR_RETURN(const auto folders, ListDir(dir));
  for (const std::string& folder : folders) {
    FT_ASSIGN_OR_RETURN(const auto names, ListDir(JoinPath(dir, folder)));
    for (const std::string& name : names) {
      FT_ASSIGN_OR_RETURN(const std::string sha256,
                          Sha256OfFile(JoinPath(JoinPath(dir, folder), name)));
      if (sha256 != name) return Violated("blob " + name + " is " + sha256);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckMark(const std::string& mark, SqliteJobStore& store,
                       BlobFiles& blobs, const Snapshot& snapshot) {
  const std::vector<std::string> words = absl::StrSplit(mark, ' ');
  const std::string& what = words[0];
  if (what == "job") {
    FT_ASSIGN_OR_RETURN(const v1::Job job, store.GetJob(words[1]), mark);
    int64_t told = 0;
    if (!absl::SimpleAtoi(words[2], &told) || job.etag() < told) {
      return Violated(absl::StrCat(mark, " is ", job.etag()));
    }
  } else if (what == "gone") {
    if (store.GetJob(words[1]).ok()) return Violated(mark + " is back");
  } else if (what == "epoch") {
    uint64_t told = 0;
    if (!absl::SimpleAtoi(words[1], &told) || snapshot.last_epoch < told) {
      return Violated(absl::StrCat(mark, " would be used again"));
    }
  } else if (what == "blob") {
    if (!blobs.Has(words[1])) return Violated(mark + " is lost");
  }
  return absl::OkStatus();
}

// The newest checkpoint is at least that of the last commit that was told.
absl::Status CheckArtifacts(SqliteJobStore& store, BlobFiles& blobs,
                            const std::vector<std::string>& marks) {
  FT_ASSIGN_OR_RETURN(const auto artifacts, store.ListArtifacts("", "", 100));
  std::set<std::string> manifests;
  for (const v1::Artifact& artifact : artifacts) {
    manifests.insert(artifact.manifest_sha256());
    FT_RETURN_IF_ERROR(
        blobs.ReadSmall(artifact.manifest_sha256(), 1 << 20).status(),
        artifact.name());
    for (const v1::FileEntry& file : artifact.manifest().files()) {
      FT_RETURN_IF_ERROR(blobs.ReadSmall(file.sha256(), 1 << 20).status(),
                         artifact.name());
    }
  }
  for (auto mark = marks.rbegin(); mark != marks.rend(); ++mark) {
    const std::vector<std::string> words = absl::StrSplit(*mark, ' ');
    if (words[0] != "committed") continue;
    // The newest told is there, or one that came after it and was not told.
    if (!manifests.contains(words[1]) && manifests.size() < 2) {
      return Violated(*mark + " is lost");
    }
    break;
  }
  return absl::OkStatus();
}

absl::Status Check(const std::string& dir,
                   const std::vector<std::string>& marks) {
  if (marks.empty() && !Exists(dir + "/state")) return absl::OkStatus();
  FT_ASSIGN_OR_RETURN(const auto store, SqliteJobStore::Open(dir + "/state"),
                      "open");
  FT_RETURN_IF_ERROR(CheckIntegrity(dir + "/state/ft.db"));
  FT_ASSIGN_OR_RETURN(const Snapshot snapshot, store->Load(), "load");
  FT_ASSIGN_OR_RETURN(const auto blobs,
                      BlobFiles::Open(dir + "/blobs", dir + "/uploads"));
  FT_RETURN_IF_ERROR(ReadOrMakeTokenFile(dir + "/tokens/admin.token").status());
  FT_RETURN_IF_ERROR(CheckBlobs(dir + "/blobs"));
  const auto swept = std::find(marks.rbegin(), marks.rend(), "sweep");
  std::set<std::string> gone;
  for (const std::string& mark : marks) {
    if (absl::StartsWith(mark, "deleting ")) gone.insert(mark.substr(9));
  }
  for (auto mark = marks.begin(); mark != marks.end(); ++mark) {
    const std::vector<std::string> words = absl::StrSplit(*mark, ' ');
    if (words[0] == "job" && gone.contains(words[1])) continue;
    if (words[0] == "blob" && mark < swept.base()) continue;
    FT_RETURN_IF_ERROR(CheckMark(*mark, *store, *blobs, snapshot));
  }
  return CheckArtifacts(*store, *blobs, marks);
}

// A power loss before the op `end`, then a start.
absl::Status LosePower(const DiskRecord& record, size_t end, Loss loss,
                       uint32_t seed) {
  const TestDir dir;
  // Only so that its syncs cost nothing.
  const FaultEnv env(dir.path());
  std::mt19937 random(seed);
  record.MakeAfterPowerLoss(end, loss, random, dir.path());
  return Check(dir / "data", record.MarksBefore(end));
}

DiskRecord RecordHistory() {
  const TestDir dir;
  FaultEnv env(dir.path());
  History history(dir / "data", env);
  history.Run();
  EXPECT_FALSE(history.is_dead());
  return env.TakeRecord();
}

// FT_POWER_LOSSES asks for more.
int Losses(int by_default) {
  return testing::SizeFrom("FT_POWER_LOSSES", by_default);
}

TEST(StorePowerLossTest, AtEverySystemCallWhatWasToldIsThere) {
  const DiskRecord record = RecordHistory();
  ASSERT_GT(record.size(), 300u);
  for (size_t end = 0; end <= record.size(); end += testing::kSanitizerStride) {
    for (const Loss loss :
         {Loss::kEverything, Loss::kNothing, Loss::kData, Loss::kNames}) {
      ASSERT_THAT(LosePower(record, end, loss, 0), IsOk())
          << "call " << end << ", loss " << static_cast<int>(loss);
    }
  }
}

TEST(StorePowerLossTest, WhateverIsTornAndReorderedWhatWasToldIsThere) {
  const DiskRecord record = RecordHistory();
  for (int seed = 1; seed <= Losses(300); ++seed) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    const size_t end = random() % (record.size() + 1);
    ASSERT_THAT(LosePower(record, end, Loss::kRandom, random()), IsOk())
        << "seed " << seed;
  }
}

TEST(StorePowerLossTest, ADiskThatOnlySaysItSyncedIsFound) {
  const DiskRecord honest = RecordHistory();
  DiskRecord lying;
  for (const DiskRecord::Op& op : honest.ops()) {
    if (op.kind != DiskRecord::Op::Kind::kSync) lying.Add(op);
  }
  EXPECT_FALSE(LosePower(lying, lying.size(), Loss::kData, /*seed=*/0).ok());
  DiskRecord forgets_names;
  for (const DiskRecord::Op& op : honest.ops()) {
    if (op.kind != DiskRecord::Op::Kind::kSyncDir) forgets_names.Add(op);
  }
  EXPECT_FALSE(
      LosePower(forgets_names, forgets_names.size(), Loss::kNames, 0).ok());
}

// --- Errors ------------------------------------------------------------------

// The k-th call fails. The process dies or goes on; then the power goes, too.
void FailAt(int64_t k, int error, bool* came) {
  const TestDir dir;
  std::vector<std::string> marks;
  {
    FaultEnv env(dir.path());
    env.FailCall(k, error);
    History history(dir / "data", env);
    history.Run();
    *came = env.has_failed();
    const DiskRecord record = env.TakeRecord();
    marks = record.MarksBefore(record.size());
    std::mt19937 random(static_cast<uint32_t>(k));
    for (const Loss loss : {Loss::kEverything, Loss::kRandom}) {
      const TestDir left;
      record.MakeAfterPowerLoss(record.size(), loss, random, left.path());
      ASSERT_THAT(Check(left / "data", marks), IsOk())
          << "call " << k << ", then no power";
    }
  }
  ASSERT_THAT(Check(dir / "data", marks), IsOk()) << "call " << k;
}

TEST(StoreErrorTest, AnErrorOfAnyCallLosesNothingThatWasTold) {
  // All of them with FT_POWER_LOSSES, each seventh else.
  const int64_t stride = std::getenv("FT_POWER_LOSSES") != nullptr ? 1 : 7;
  bool came = true;
  for (int64_t k = 1; came && !::testing::Test::HasFatalFailure();
       k += stride) {
    FailAt(k, EIO, &came);
  }
}

TEST(StoreErrorTest, NothingIsToldAfterAFailedFsync) {
  bool came = true;
  int deaths = 0;
  for (int64_t k = 1; came; ++k) {
    const TestDir dir;
    FaultEnv env(dir.path());
    env.FailSync(k);
    History history(dir / "data", env);
    history.Run();
    came = env.has_failed();
    deaths += history.is_dead();
    ASSERT_FALSE(history.told_too_much())
        << "fsync " << k << " of " << env.failed_path();
  }
  EXPECT_GT(deaths, 50);
}

// --- A full disk -------------------------------------------------------------

TEST(FullDiskTest, MutationsAreRefusedAndGoOnWhenThereIsRoom) {
  const TestDir dir;
  FaultEnv env(dir.path());
  const auto store = SqliteJobStore::Open(dir / "state").value();
  const auto blobs = BlobFiles::Open(dir / "blobs", dir / "uploads").value();
  v1::Job job;
  job.set_job_id("job-7q3k0v2m9xwz");
  const Decision decision{.records = {PutJob{job}}, .effects = {}};
  v1::BeginUploadRequest begin;
  begin.set_sha256(Sha256Hex("content"));
  begin.set_bytes(7);
  v1::WriteRequest write;
  write.set_upload_id(blobs->Begin(begin).value().upload_id());
  write.set_data("content");
  write.set_crc32c(Crc32c("content"));

  env.SetFull(true);
  EXPECT_THAT(store->Commit(std::span(&decision, 1)),
              HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(store->Load(), IsOk());
  const auto refused = blobs->Write(write);
  EXPECT_EQ(ReasonOf(refused.status()), "STORE_FULL");
  EXPECT_EQ(blobs->Query(write.upload_id()).value().offset(), 0);

  env.SetFull(false);
  EXPECT_THAT(store->Commit(std::span(&decision, 1)), IsOk());
  EXPECT_THAT(blobs->Write(write), IsOk());
  EXPECT_THAT(blobs->Finish(write.upload_id()), IsOk());
  EXPECT_THAT(store->GetJob(job.job_id()), IsOk());
}

}  // namespace
}  // namespace ft
