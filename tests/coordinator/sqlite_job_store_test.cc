// SPDX-License-Identifier: Apache-2.0

#include "coordinator/sqlite_job_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "coordinator/proto_time.h"
#include "coordinator/sqlite_db.h"
#include "coordinator/sqlite_schema.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::HasCode;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::TestDir;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

v1::Job MakeJob(int number, v1::JobState state = v1::JOB_STATE_QUEUED) {
  v1::Job job;
  job.set_job_id(absl::StrCat("job-", number));
  job.set_submit_seq(number);
  job.mutable_spec()->set_name("hotel-bot");
  job.mutable_status()->set_state(state);
  *job.mutable_status()->mutable_ended() = ToProto(kNow);
  return job;
}

Decision Submitted(int number, size_t padding = 0) {
  v1::Event event;
  event.set_job_id(absl::StrCat("job-", number));
  event.set_job_seq(1);
  event.set_message(std::string(padding, 'x'));
  Decision decision;
  decision.records = {PutJob{MakeJob(number)}, AppendEvent{event, "test"}};
  return decision;
}

absl::Status CommitOne(SqliteJobStore& store, const Decision& decision) {
  return store.Commit(std::span(&decision, 1));
}

TEST(SqliteJobStoreTest, WhatWasCommittedIsThereAfterReopening) {
  TestDir dir;
  {
    auto store = SqliteJobStore::Open(dir.path()).value();
    Decision decision = Submitted(1);
    v1::Attempt attempt;
    attempt.set_epoch(17);
    attempt.set_number(1);
    decision.records.push_back(PutAttempt{"job-1", attempt});
    decision.records.push_back(PutLastEpoch{17});
    decision.records.push_back(PutSpoolMark{17, "w-1", 5});
    ArtifactRow row;
    row.artifact.set_name("adapter");
    row.files_sha256 = "f";
    decision.records.push_back(PutArtifact{row});
    decision.records.push_back(PutReply{{.key = {.principal = "admin",
                                                 .request_id = "r",
                                                 .method = Method::kCreateJob,
                                                 .body_sha256 = "b"},
                                         .reply = "answer"},
                                        kNow});
    FT_ASSERT_OK(CommitOne(*store, decision));
    FT_ASSERT_OK(CommitOne(
        *store, {.records = {PutJob{MakeJob(2, v1::JOB_STATE_FAILED)}},
                 .effects = {}}));
  }
  auto store = SqliteJobStore::Open(dir.path()).value();
  EXPECT_EQ(store->incarnation(), 2);
  const Snapshot snapshot = store->Load().value();
  ASSERT_EQ(snapshot.live.size(), 1u);
  EXPECT_EQ(snapshot.live[0].job.status().attempts(0).epoch(), 17u);
  EXPECT_EQ(snapshot.live[0].last_event_seq, 1);
  ASSERT_EQ(snapshot.ended.size(), 1u);
  EXPECT_EQ(snapshot.ended[0].state, v1::JOB_STATE_FAILED);
  EXPECT_EQ(snapshot.last_epoch, 17u);
  EXPECT_EQ(snapshot.last_submit_seq, 2);
  EXPECT_EQ(snapshot.spool_marks.at(0).seq, 5);
  EXPECT_EQ(snapshot.artifacts.at(0).files_sha256, "f");
  EXPECT_EQ(snapshot.cluster_key.size(), 32u);
  const auto reply = store->FindReply("admin", "r").value();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->reply, "answer");
  EXPECT_FALSE(store->FindReply("worker", "r").value().has_value());
}

TEST(SqliteJobStoreTest, AJobHasAtMostOneLiveAttempt) {
  TestDir dir;
  auto store = SqliteJobStore::Open(dir.path()).value();
  v1::Attempt first;
  first.set_epoch(1);
  v1::Attempt second;
  second.set_epoch(2);
  FT_ASSERT_OK(CommitOne(
      *store, {.records = {PutAttempt{"job-1", first}}, .effects = {}}));
  EXPECT_THAT(CommitOne(*store, {.records = {PutAttempt{"job-1", second}},
                                 .effects = {}}),
              HasCode(absl::StatusCode::kInternal));
  first.set_state(v1::ATTEMPT_STATE_ENDED);
  FT_EXPECT_OK(CommitOne(*store, {.records = {PutAttempt{"job-1", first},
                                              PutAttempt{"job-1", second}},
                                  .effects = {}}));
}

TEST(SqliteJobStoreTest, AFailedBatchLeavesNothingBehind) {
  TestDir dir;
  auto store = SqliteJobStore::Open(dir.path()).value();
  FT_ASSERT_OK(CommitOne(*store, Submitted(1)));
  Decision bad = Submitted(2);
  bad.records.push_back(Submitted(1).records[1]);  // Its number is taken.
  EXPECT_FALSE(CommitOne(*store, bad).ok());
  EXPECT_THAT(store->GetJob("job-2"), HasCode(absl::StatusCode::kNotFound));
  FT_EXPECT_OK(CommitOne(*store, Submitted(2)));
}

TEST(SqliteJobStoreTest, AFullDiskIsResourceExhaustedAndPasses) {
  TestDir dir;
  auto store = SqliteJobStore::Open(dir.path(), {.max_pages = 64}).value();
  int stored = 0;
  absl::Status status;
  while ((status = CommitOne(*store, Submitted(stored + 1, 10'000))).ok()) {
    ++stored;
  }
  EXPECT_THAT(status, HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_GT(stored, 3);
  EXPECT_EQ(store->Load().value().live.size(), static_cast<size_t>(stored));
  FT_ASSERT_OK(CommitOne(
      *store,
      {.records = {EraseJob{"job-1"}, EraseJob{"job-2"}}, .effects = {}}));
  FT_EXPECT_OK(CommitOne(*store, Submitted(stored + 1, 100)));
}

TEST(SqliteJobStoreTest, ASecondCoordinatorIsRefused) {
  TestDir dir;
  auto store = SqliteJobStore::Open(dir.path()).value();
  const auto second = SqliteJobStore::Open(dir.path());
  EXPECT_THAT(second, HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another"));
}

TEST(SqliteJobStoreTest, WhoLosesTheStoreDespiteTheLockWritesNothing) {
  TestDir dir;
  auto loser = SqliteJobStore::Open(dir.path()).value();
  // As if flock had failed: somebody raised the incarnation.
  FT_ASSERT_OK(SqliteDb::Open(dir / "ft.db", {})
                   .value()
                   ->Exec("UPDATE meta SET value = value + 1 "
                          "WHERE key = 'incarnation'"));
  EXPECT_THAT(CommitOne(*loser, Submitted(1)),
              HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_TRUE(loser->Load().value().live.empty());
}

TEST(SqliteJobStoreTest, ANewerSchemaIsRefused) {
  TestDir dir;
  SqliteJobStore::Open(dir.path()).value().reset();
  FT_ASSERT_OK(SqliteDb::Open(dir / "ft.db", {})
                   .value()
                   ->Exec("UPDATE meta SET value = 99 WHERE key = 'schema'"));
  const auto store = SqliteJobStore::Open(dir.path());
  EXPECT_THAT(store, HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("newer"));
}

TEST(SqliteJobStoreTest, AStoreOfTheFirstSchemaIsMigratedAfterACopy) {
  TestDir dir;
  {
    auto old = SqliteDb::Open(dir / "ft.db", {}).value();
    FT_ASSERT_OK(MigrateSchema(*old, dir.path(), 1));
    FT_ASSERT_OK(old->Exec(
        "INSERT INTO jobs VALUES('job-1', '', '', 'hotel-bot', 1, 50, 1, 1, "
        "x'', x'', NULL); INSERT INTO meta VALUES('last_epoch', 41)"));
    ASSERT_EQ(MetaInt(*old, "schema").value(), 1);
  }
  {
    auto store = SqliteJobStore::Open(dir.path()).value();
    const Snapshot snapshot = store->Load().value();
    ASSERT_EQ(snapshot.live.size(), 1u);
    EXPECT_EQ(snapshot.last_epoch, 41u);
    PutWorker quarantined{.worker_id = "w-1", .marks = {}};
    quarantined.marks.mutable_quarantine()->set_reason("crashes");
    FT_ASSERT_OK(CommitOne(
        *store,
        {.records = {quarantined, AppendAudit{.at = kNow,
                                              .principal = "coordinator",
                                              .method = "QuarantineWorker",
                                              .resource = "workers/w-1",
                                              .detail = "crashes"}},
         .effects = {}}));
  }
  auto store = SqliteJobStore::Open(dir.path()).value();
  const Snapshot snapshot = store->Load().value();
  ASSERT_EQ(snapshot.workers.size(), 1u);
  EXPECT_EQ(snapshot.workers[0].marks.quarantine().reason(), "crashes");
  auto copy = SqliteDb::Open(dir / "ft.db.schema1", {}).value();
  EXPECT_EQ(MetaInt(*copy, "schema").value(), 1);
}

TEST(SqliteJobStoreTest, AMigrationThatFailsHalfWayChangesNothing) {
  TestDir dir;
  auto db = SqliteDb::Open(dir / "ft.db", {}).value();
  FT_ASSERT_OK(MigrateSchema(*db, dir.path(), 1));
  // The second table of the migration is in the way, its first is not.
  FT_ASSERT_OK(db->Exec("CREATE TABLE audit(seq INTEGER)"));
  db.reset();
  EXPECT_FALSE(SqliteJobStore::Open(dir.path()).ok());
  db = SqliteDb::Open(dir / "ft.db", {}).value();
  EXPECT_EQ(MetaInt(*db, "schema").value(), 1);
  EXPECT_FALSE(db->Exec("SELECT * FROM workers").ok());
  FT_ASSERT_OK(db->Exec("DROP TABLE audit"));
  db.reset();
  FT_EXPECT_OK(SqliteJobStore::Open(dir.path()).status());
}

TEST(SqliteJobStoreTest, EveryAuditRowsDigestGoesOverTheOneBefore) {
  TestDir dir;
  auto store = SqliteJobStore::Open(dir.path()).value();
  const AppendAudit row{.at = kNow,
                        .principal = "admin",
                        .method = "ReleaseWorker",
                        .resource = "workers/w-1",
                        .detail = ""};
  FT_ASSERT_OK(CommitOne(*store, {.records = {row, row}, .effects = {}}));
  FT_ASSERT_OK(CommitOne(*store, {.records = {row}, .effects = {}}));
  auto db = SqliteDb::Open(dir / "ft.db", {.read_only = true}).value();
  SqlStatement rows =
      db->Prepare("SELECT chain_sha256 FROM audit ORDER BY seq").value();
  std::set<std::string> digests;
  while (rows.Step().value()) {
    EXPECT_EQ(rows.BytesAt(0).size(), 32u);
    digests.insert(rows.BytesAt(0));
  }
  EXPECT_EQ(digests.size(), 3u);
}

TEST(SqliteJobStoreTest, ListsPagesNewestFirst) {
  TestDir dir;
  auto store = SqliteJobStore::Open(dir.path()).value();
  for (int i = 1; i <= 5; ++i) {
    FT_ASSERT_OK(CommitOne(*store, Submitted(i)));
  }
  const auto page = store->ListJobs({.page_size = 2}).value();
  ASSERT_EQ(page.size(), 2u);
  EXPECT_EQ(page[0].job_id(), "job-5");
  const auto rest =
      store->ListJobs({.page_size = 9, .before_submit_seq = 4}).value();
  ASSERT_EQ(rest.size(), 3u);
  EXPECT_EQ(rest[0].job_id(), "job-3");
  EXPECT_TRUE(store->ListJobs({.states = {v1::JOB_STATE_FAILED}, .name = ""})
                  .value()
                  .empty());
}

TEST(SqliteJobStoreTest, ReferencedBlobsAreThoseOfArtifactsAndJobs) {
  TestDir dir;
  auto store = SqliteJobStore::Open(dir.path()).value();
  Decision decision = Submitted(1);
  v1::Job job = MakeJob(2);
  job.mutable_spec()->mutable_data()->add_train()->set_sha256("train");
  ArtifactRow row;
  row.artifact.set_name("a");
  row.artifact.set_manifest_sha256("manifest");
  row.artifact.mutable_manifest()->add_files()->set_sha256("file");
  decision.records.push_back(PutJob{job});
  decision.records.push_back(PutArtifact{row});
  FT_ASSERT_OK(CommitOne(*store, decision));
  const std::set<std::string> blobs = store->ReferencedBlobs().value();
  EXPECT_TRUE(blobs.contains("train"));
  EXPECT_TRUE(blobs.contains("manifest"));
  EXPECT_TRUE(blobs.contains("file"));
}

// The child commits in a loop and says each number only after its commit; it is
// killed in the middle of one.
TEST(SqliteJobStoreTest, WhatWasAcknowledgedSurvivesKillNine) {
  for (const int survive : {3, 40}) {
    TestDir dir;
    int pipe_fds[2];
    ASSERT_EQ(::pipe(pipe_fds), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto store = SqliteJobStore::Open(dir.path());
      if (!store.ok()) ::_exit(1);
      for (int i = 1;; ++i) {
        if (!CommitOne(**store, Submitted(i, 2'000)).ok()) ::_exit(1);
        if (::write(pipe_fds[1], &i, sizeof(i)) != sizeof(i)) ::_exit(1);
      }
    }
    ::close(pipe_fds[1]);
    int acknowledged = 0;
    while (acknowledged < survive) {
      ASSERT_EQ(::read(pipe_fds[0], &acknowledged, sizeof(acknowledged)),
                static_cast<ssize_t>(sizeof(acknowledged)));
    }
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    int more = 0;
    while (::read(pipe_fds[0], &more, sizeof(more)) == sizeof(more)) {
      acknowledged = more;
    }
    ::close(pipe_fds[0]);

    auto store = SqliteJobStore::Open(dir.path()).value();
    const Snapshot snapshot = store->Load().value();
    EXPECT_GE(snapshot.live.size(), static_cast<size_t>(acknowledged));
    for (const auto& live : snapshot.live) {
      EXPECT_EQ(live.last_event_seq, 1) << "half a transaction";
    }
  }
}

}  // namespace
}  // namespace ft
