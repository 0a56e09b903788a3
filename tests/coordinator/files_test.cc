// SPDX-License-Identifier: Apache-2.0
//
// What the coordinator keeps in plain files: metric points, log lines, blobs.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/id.h"
#include "coordinator/blob_files.h"
#include "coordinator/janitor.h"
#include "coordinator/memory_job_store.h"
#include "coordinator/run_records.h"
#include "coordinator/segment_log.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::ElementsAre;
using testing::HasCode;
using testing::IsOk;
using testing::TestDir;

constexpr char kJob[] = "job-7q3k0v2m9xwz";

// --- Segments ----------------------------------------------------------------

std::vector<std::string> RecordsOf(const std::string& path) {
  std::vector<std::string> records;
  EXPECT_THAT(ReadSegment(path, 0,
                          [&](absl::string_view record) {
                            records.emplace_back(record);
                            return true;
                          }),
              IsOk());
  return records;
}

TEST(SegmentLogTest, ATornEndIsDroppedWhereverItIsCut) {
  TestDir dir;
  const std::string path = dir / "a.seg";
  {
    SegmentLog log = SegmentLog::Open(path).value();
    ASSERT_THAT(log.Append("first"), IsOk());
    ASSERT_THAT(log.Append("second"), IsOk());
  }
  const std::string whole = ReadFile(path, 1000).value();
  for (size_t size = 13; size < whole.size(); ++size) {
    ASSERT_THAT(WriteFileAtomic(path, whole.substr(0, size)), IsOk());
    SegmentLog log = SegmentLog::Open(path).value();
    ASSERT_THAT(log.Append("third"), IsOk());
    EXPECT_THAT(RecordsOf(path), ElementsAre("first", "third")) << size;
  }
}

TEST(SegmentLogTest, AFlippedBitEndsTheReading) {
  TestDir dir;
  const std::string path = dir / "a.seg";
  {
    SegmentLog log = SegmentLog::Open(path).value();
    ASSERT_THAT(log.Append("first"), IsOk());
    ASSERT_THAT(log.Append("second"), IsOk());
  }
  std::string bytes = ReadFile(path, 1000).value();
  bytes[bytes.size() - 1] ^= 1;
  ASSERT_THAT(WriteFileAtomic(path, bytes), IsOk());
  EXPECT_THAT(RecordsOf(path), ElementsAre("first"));
}

// --- Points and lines --------------------------------------------------------

v1::ReportRequest Report(uint64_t epoch, int64_t seq, int64_t step,
                         double loss) {
  v1::ReportRequest report;
  report.set_worker_id("w-1");
  report.set_job_id(kJob);
  report.set_epoch(epoch);
  report.set_seq(seq);
  v1::StepMetrics& point = *report.add_metrics();
  point.set_step(step);
  point.set_loss(loss);
  return report;
}

TEST(RunRecordsTest, TheLastEpochOfAStepWinsAndEqualBitsAreAsserted) {
  TestDir dir;
  RunRecords records(dir.path());
  ASSERT_THAT(records.Append(Report(7, 1, 1, 3.0)), IsOk());
  ASSERT_THAT(records.Append(Report(7, 2, 2, 2.0)), IsOk());
  const auto same = records.Append(Report(9, 1, 2, 2.0)).value();
  EXPECT_TRUE(same.diverged.empty());
  const auto other = records.Append(Report(9, 2, 1, 3.0000001)).value();
  ASSERT_EQ(other.diverged.size(), 1u);
  EXPECT_EQ(other.diverged[0].step, 1);

  const auto points = records.Metrics(kJob, 0, 10).value();
  ASSERT_EQ(points.size(), 2u);
  EXPECT_EQ(points[0].loss(), 3.0000001);
  EXPECT_EQ(points[1].attempt_epoch(), 9u);
}

TEST(RunRecordsTest, AnOldGangDoesNotOverwriteANewOne) {
  TestDir dir;
  RunRecords records(dir.path());
  ASSERT_THAT(records.Append(Report(9, 1, 1, 3.0)), IsOk());
  ASSERT_THAT(records.Append(Report(7, 1, 1, 3.0)), IsOk());
  EXPECT_EQ(records.Metrics(kJob, 0, 10).value()[0].attempt_epoch(), 9u);
}

TEST(RunRecordsTest, APageDoesNotPartAStepFromItsEvaluation) {
  TestDir dir;
  RunRecords records(dir.path());
  v1::ReportRequest report = Report(7, 1, 1, 3.0);
  for (const int step : {2, 3}) {
    v1::StepMetrics& point = *report.add_metrics();
    point.set_step(step);
    point.set_loss(2.0);
  }
  v1::StepMetrics& evaluation = *report.add_metrics();
  evaluation.set_step(2);
  evaluation.set_eval_loss(2.5);
  ASSERT_THAT(records.Append(report), IsOk());

  const auto page = records.Metrics(kJob, 0, 2).value();
  ASSERT_EQ(page.size(), 3u);
  EXPECT_EQ(page[2].step(), 2);
  EXPECT_EQ(page[2].eval_loss(), 2.5);
  const auto next = records.Metrics(kJob, 2, 2).value();
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(next[0].step(), 3);
  EXPECT_EQ(records.Metrics(kJob, 0, 1).value().size(), 1u);
}

TEST(RunRecordsTest, AMessageThatIsSentAgainIsStoredOnceEvenAfterARestart) {
  TestDir dir;
  v1::ReportRequest report = Report(7, 1, 1, 3.0);
  report.add_logs()->set_text("hello");
  {
    RunRecords records(dir.path());
    EXPECT_TRUE(records.Append(report).value().is_new);
    EXPECT_FALSE(records.Append(report).value().is_new);
  }
  RunRecords records(dir.path());
  EXPECT_FALSE(records.Append(report).value().is_new);
  EXPECT_EQ(records.Logs(kJob, 0, {}).value().lines.size(), 1u);
  EXPECT_EQ(records.Metrics(kJob, 0, 10).value().size(), 1u);
}

TEST(RunRecordsTest, LinesAreFilteredByRankLevelAndAge) {
  TestDir dir;
  RunRecords records(dir.path());
  v1::ReportRequest report = Report(7, 1, 1, 3.0);
  for (int rank = 0; rank < 2; ++rank) {
    for (const auto level : {v1::LOG_LEVEL_INFO, v1::LOG_LEVEL_WARN}) {
      v1::LogLine& line = *report.add_logs();
      line.set_rank(rank);
      line.set_level(level);
      line.set_text(absl::StrCat(rank, "/", level));
      line.mutable_at()->set_seconds(100 + rank);
    }
  }
  ASSERT_THAT(records.Append(report), IsOk());
  EXPECT_EQ(records.Logs(kJob, 0, {.rank = 1}).value().lines.size(), 2u);
  EXPECT_EQ(records.Logs(kJob, 0, {.min_level = v1::LOG_LEVEL_WARN})
                .value()
                .lines.size(),
            2u);
  EXPECT_EQ(records.Logs(kJob, 0, {.since = absl::FromUnixSeconds(101)})
                .value()
                .lines.size(),
            2u);
}

TEST(RunRecordsTest, JobsThatWereLookedAtDoNotStayOpenForEver) {
  TestDir dir;
  RunRecords records(dir.path());
  const auto open_files = [] { return ListDir("/proc/self/fd")->size(); };
  const size_t before = open_files();
  const auto job_id = [](size_t i) {
    return MakeJobId(absl::UnixEpoch(), static_cast<uint32_t>(i));
  };
  for (size_t i = 0; i < 4 * RunRecords::kMaxOpen; ++i) {
    v1::ReportRequest report = Report(1, 1, 1, 0.5);
    report.set_job_id(job_id(i));
    ASSERT_TRUE(records.Append(report).ok());
  }
  EXPECT_LE(open_files(), before + 2 * RunRecords::kMaxOpen);
  // What was closed is opened again.
  EXPECT_EQ(records.Metrics(job_id(0), 0, 10)->size(), 1);
}

TEST(RunRecordsTest, AJobIdThatIsAPathIsRefused) {
  TestDir dir;
  RunRecords records(dir / "jobs");
  v1::ReportRequest report = Report(7, 1, 1, 3.0);
  for (const char* id : {"../evil", "", "job-../../../x", "/etc"}) {
    report.set_job_id(id);
    EXPECT_THAT(records.Append(report),
                HasCode(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(records.Logs(id, 0, {}),
                HasCode(absl::StatusCode::kInvalidArgument));
  }
}

// --- Blobs -------------------------------------------------------------------

class BlobFilesTest : public ::testing::Test {
 protected:
  std::string Put(const std::string& bytes) {
    v1::BeginUploadRequest begin;
    begin.set_sha256(Sha256Hex(bytes));
    begin.set_bytes(static_cast<int64_t>(bytes.size()));
    const std::string id = blobs_->Begin(begin).value().upload_id();
    v1::WriteRequest write;
    write.set_upload_id(id);
    write.set_data(bytes);
    write.set_crc32c(Crc32c(bytes));
    EXPECT_THAT(blobs_->Write(write), IsOk());
    return blobs_->Finish(id).value().sha256();
  }
  // Makes a file look so old.
  void Age(const std::string& path, absl::Duration age) {
    const timespec then = absl::ToTimespec(absl::Now() - age);
    const timespec times[2] = {then, then};
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }
  std::string PathOf(const std::string& sha256) {
    return JoinPath(JoinPath(dir_ / "blobs", sha256.substr(0, 2)), sha256);
  }

  TestDir dir_;
  std::unique_ptr<BlobFiles> blobs_ =
      BlobFiles::Open(dir_ / "blobs", dir_ / "uploads").value();
};

TEST_F(BlobFilesTest, AWrongCrcOrSizeKeepsNothing) {
  v1::BeginUploadRequest begin;
  begin.set_sha256(Sha256Hex("abc"));
  begin.set_bytes(3);
  const std::string id = blobs_->Begin(begin).value().upload_id();
  v1::WriteRequest write;
  write.set_upload_id(id);
  write.set_data("abc");
  EXPECT_THAT(blobs_->Write(write), HasCode(absl::StatusCode::kDataLoss));
  EXPECT_EQ(blobs_->Query(id).value().offset(), 0);
  write.set_data("abcd");
  write.set_crc32c(Crc32c("abcd"));
  EXPECT_THAT(blobs_->Write(write), HasCode(absl::StatusCode::kOutOfRange));
}

// As two clients that send the same file end it.
TEST_F(BlobFilesTest, WhoeverFinishesAtTheSameTimeHearsTheSame) {
  const std::string bytes(3 << 20, 'x');
  v1::BeginUploadRequest begin;
  begin.set_sha256(Sha256Hex(bytes));
  begin.set_bytes(static_cast<int64_t>(bytes.size()));
  const std::string id = blobs_->Begin(begin).value().upload_id();
  v1::WriteRequest write;
  write.set_upload_id(id);
  for (size_t at = 0; at < bytes.size(); at += 1 << 20) {
    write.set_offset(static_cast<int64_t>(at));
    write.set_data(bytes.substr(at, 1 << 20));
    write.set_crc32c(Crc32c(write.data()));
    ASSERT_THAT(blobs_->Write(write), IsOk());
  }
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      const absl::StatusOr<v1::FinishUploadResponse> finished =
          blobs_->Finish(id);
      ASSERT_THAT(finished, IsOk());
      EXPECT_EQ(finished->sha256(), begin.sha256());
      EXPECT_EQ(finished->bytes(), begin.bytes());
    });
  }
  for (std::thread& client : clients) client.join();
  // Who was still sending begins again, and finds the blob.
  EXPECT_THAT(blobs_->Write(write), HasCode(absl::StatusCode::kNotFound));
  EXPECT_TRUE(blobs_->Begin(begin).value().complete());
}

TEST_F(BlobFilesTest, ARottenBlobIsNotServed) {
  const std::string sha256 = Put("content");
  ASSERT_THAT(WriteFileAtomic(PathOf(sha256), "c0ntent"), IsOk());
  EXPECT_THAT(blobs_->ReadSmall(sha256, 100),
              HasCode(absl::StatusCode::kDataLoss));
}

TEST_F(BlobFilesTest, NamesThatAreNoDigestsAreRefused) {
  EXPECT_FALSE(blobs_->Has("../../etc/passwd"));
  EXPECT_THAT(blobs_->ReadPiece("../../etc/passwd", 0, 10),
              HasCode(absl::StatusCode::kInvalidArgument));
  v1::BeginUploadRequest begin;
  begin.set_sha256("../x");
  EXPECT_THAT(blobs_->Begin(begin),
              HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(blobs_->Finish("../x"), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(BlobFilesTest, OldAttemptsWriteIntoFilesOfTheirOwn) {
  v1::BeginUploadRequest begin;
  begin.set_sha256(Sha256Hex("abc"));
  begin.set_bytes(3);
  begin.set_job_id(kJob);
  begin.set_epoch(7);
  const std::string old = blobs_->Begin(begin).value().upload_id();
  begin.set_epoch(8);
  const std::string now = blobs_->Begin(begin).value().upload_id();
  EXPECT_NE(old, now);
  EXPECT_EQ(blobs_->WriterOf(old).value().epoch, 7u);
  EXPECT_EQ(blobs_->WriterOf(now).value().epoch, 8u);
}

TEST_F(BlobFilesTest, OnlyOldBlobsNobodyRefersToAreSwept) {
  MemoryJobStore store;
  const std::string needed = Put("needed");
  const std::string young = Put("young");
  const std::string asked = Put("asked");
  const std::string doomed = Put("doomed");
  v1::Job job;
  job.set_job_id(kJob);
  job.mutable_spec()->mutable_data()->add_train()->set_sha256(needed);
  const Decision decision{.records = {PutJob{job}}, .effects = {}};
  ASSERT_THAT(store.Commit(std::span(&decision, 1)), IsOk());
  for (const std::string& sha256 : {needed, asked, doomed}) {
    Age(PathOf(sha256), absl::Hours(2));
  }
  EXPECT_TRUE(blobs_->Has(asked));

  Janitor janitor(store, *blobs_, {});
  const auto swept = janitor.Sweep(absl::Now());
  ASSERT_THAT(swept, IsOk());
  EXPECT_EQ(swept->blobs, 1);
  EXPECT_TRUE(blobs_->Has(needed));
  EXPECT_TRUE(blobs_->Has(young));
  EXPECT_TRUE(blobs_->Has(asked));
  EXPECT_FALSE(blobs_->Has(doomed));
}

TEST_F(BlobFilesTest, UploadsUntouchedForADayAreSwept) {
  MemoryJobStore store;
  v1::BeginUploadRequest begin;
  begin.set_sha256(Sha256Hex("abc"));
  begin.set_bytes(3);
  const std::string id = blobs_->Begin(begin).value().upload_id();
  Janitor janitor(store, *blobs_, {});
  EXPECT_EQ(janitor.Sweep(absl::Now() + absl::Hours(23)).value().uploads, 0);
  EXPECT_EQ(janitor.Sweep(absl::Now() + absl::Hours(25)).value().uploads, 1);
  EXPECT_THAT(blobs_->Query(id), HasCode(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace ft
