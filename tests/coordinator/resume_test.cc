// SPDX-License-Identifier: Apache-2.0
//
// A FAILED job that a person resumes: it goes on from its newest checkpoint
// with its past forgiven, once a request, and only while all is there that it
// needs.

#include "tests/coordinator/core_world.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::HasCode;
using ::testing::HasSubstr;
using testing::IsOk;
using enum absl::StatusCode;

class ResumeTest : public ::testing::Test, protected testing::CoreWorld {
 protected:
  ResumeTest() { Attach("w-1"); }

  // A job with a checkpoint of step 2, out of memory in its third attempt.
  std::string FailedJob() {
    const std::string job = RunningOn("w-1");
    EXPECT_THAT(Checkpoint(job, 2), IsOk());
    KillRank("w-1", job);
    KillRank("w-1", job);
    FailRank("w-1", job);
    EXPECT_EQ(State(job), v1::JOB_STATE_FAILED);
    return job;
  }
  void Succeed(const std::string& job) {
    StepTo(job, 3);
    Done("w-1", job);
    ASSERT_THAT(Publish(job), IsOk());
    ASSERT_EQ(State(job), v1::JOB_STATE_SUCCEEDED);
  }
};

TEST_F(ResumeTest, AFailedJobGoesOnFromItsNewestCheckpoint) {
  const std::string job = FailedJob();
  const uint64_t before = Epoch(job);
  const Reply reply = Resume(job);
  ASSERT_THAT(reply.status, IsOk());
  v1::Job answer;
  ASSERT_TRUE(answer.ParseFromString(reply.response));
  EXPECT_EQ(answer.status().state(), v1::JOB_STATE_QUEUED);

  const v1::Job resumed = Job(job);
  EXPECT_EQ(resumed.status().state(), v1::JOB_STATE_STARTING);
  EXPECT_GT(LastAttempt(job).epoch(), before);
  EXPECT_EQ(LastAttempt(job).source_step(), 2);
  EXPECT_FALSE(resumed.status().has_ended());
  EXPECT_EQ(resumed.status().reason(), "");
  EXPECT_EQ(resumed.status().message(), "");
  EXPECT_EQ(resumed.status().attempts_size(), 4);
  EXPECT_EQ(resumed.status().attempts_before_resume(), 3);
  EXPECT_EQ(resumed.status().attempts_without_progress(), 0);
  Succeed(job);
  EXPECT_TRUE(Job(job).status().has_ended());
}

TEST_F(ResumeTest, AFailedJobWithoutACheckpointBeginsAnew) {
  const std::string job = RunningOn("w-1");
  FailRank("w-1", job);
  ASSERT_THAT(Resume(job).status, IsOk());
  EXPECT_EQ(LastAttempt(job).source_step(), 0);
  Succeed(job);
}

TEST_F(ResumeTest, ItsRetriesAreCountedAnew) {
  const std::string job = FailedJob();
  ASSERT_THAT(Resume(job).status, IsOk());
  KillRank("w-1", job);
  KillRank("w-1", job);
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING) << "the past was counted";
  KillRank("w-1", job);
  EXPECT_EQ(State(job), v1::JOB_STATE_HELD);
}

TEST_F(ResumeTest, ItsTimelineGoesOn) {
  const std::string job = FailedJob();
  const int64_t last = store().LastEventSeq(job).value();
  ASSERT_THAT(Resume(job).status, IsOk());
  const std::vector<v1::Event> events =
      store().ListEvents(job, last, 1).value();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].job_seq(), last + 1);
  EXPECT_EQ(events[0].kind(), v1::EVENT_KIND_STATE_CHANGED);
  EXPECT_EQ(events[0].message(), "FAILED -> QUEUED");
}

TEST_F(ResumeTest, WhatEndedOtherwiseIsNotResumed) {
  const std::string done = RunningOn("w-1");
  Succeed(done);
  EXPECT_EQ(ReasonOf(Resume(done).status), "JOB_ENDED");
  EXPECT_THAT(Resume(done).status.message(), HasSubstr("SUCCEEDED"));

  const std::string cancelled = Submit(Spec()).value();
  Cancel(cancelled);
  End("w-1", cancelled, {.cause = v1::ATTEMPT_CAUSE_STOPPED});
  ASSERT_EQ(State(cancelled), v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(ReasonOf(Resume(cancelled).status), "JOB_ENDED");
}

TEST_F(ResumeTest, OneRequestHasOneEffect) {
  const std::string job = FailedJob();
  const Reply first = Resume(job, "again");
  ASSERT_THAT(first.status, IsOk());
  const uint64_t epoch = Epoch(job);
  EXPECT_EQ(Resume(job, "again").response, first.response);
  EXPECT_EQ(Epoch(job), epoch);
  FailRank("w-1", job);
  EXPECT_EQ(Resume(job, "again").response, first.response);
  EXPECT_EQ(State(job), v1::JOB_STATE_FAILED) << "it was resumed once more";
}

TEST_F(ResumeTest, WhatWasReadBeforeAnotherResumeIsNotGoneOnFrom) {
  const std::string job = FailedJob();
  const auto read = ReadFailed(job);
  ASSERT_THAT(Resume(job).status, IsOk());
  EXPECT_EQ(ReasonOf(ResumeWith(job, read).status), "WRONG_STATE");
  StepTo(job, 3);
  ASSERT_THAT(Checkpoint(job, 4), IsOk());
  FailRank("w-1", job);
  EXPECT_THAT(ResumeWith(job, read).status, HasCode(kUnavailable));
  EXPECT_THAT(ResumeWith(job, std::nullopt).status, HasCode(kUnavailable));
  EXPECT_EQ(State(job), v1::JOB_STATE_FAILED);
  ASSERT_THAT(Resume(job).status, IsOk());
  EXPECT_EQ(LastAttempt(job).source_step(), 4);
}

TEST_F(ResumeTest, ItIsEitherResumedOrDeleted) {
  const std::string deleted = FailedJob();
  const auto read = ReadFailed(deleted);
  ASSERT_THAT(Delete(deleted).status, IsOk());
  EXPECT_THAT(ResumeWith(deleted, read).status, HasCode(kNotFound));
  EXPECT_THAT(store().GetJob(deleted), HasCode(kNotFound));

  const std::string resumed = FailedJob();
  ASSERT_THAT(Resume(resumed).status, IsOk());
  EXPECT_EQ(ReasonOf(Delete(resumed).status), "JOB_LIVE");
}

TEST_F(ResumeTest, WhatItNeedsMustBeThere) {
  const std::string job = FailedJob();
  auto read = ReadFailed(job);
  read->inputs = absl::FailedPreconditionError("rows.jsonl is gone");
  EXPECT_THAT(ResumeWith(job, read).status.message(),
              HasSubstr("rows.jsonl is gone"));

  DeleteArtifactCommand erase;
  erase.name = absl::StrCat(job, "-step-000002");
  erase.request = MakeRequest(Method::kDeleteArtifact, "erase", erase.name);
  ASSERT_THAT(Call(std::move(erase)).status, IsOk());
  const absl::Status refused = Resume(job).status;
  EXPECT_EQ(ReasonOf(refused), "MISSING_BLOBS");
  EXPECT_THAT(refused.message(), HasSubstr("checkpoint of step 2"));
  EXPECT_EQ(State(job), v1::JOB_STATE_FAILED);
}

TEST_F(ResumeTest, TheNameOfItsResultMustBeFree) {
  v1::JobSpec spec = Spec();
  spec.mutable_export_()->set_name("bot");
  const std::string job = Submit(spec).value();
  FailRank("w-1", job);
  const std::string other = Submit(spec).value();
  EXPECT_EQ(ReasonOf(Resume(job).status), "NAME_IN_USE");
  Succeed(other);
  EXPECT_EQ(ReasonOf(Resume(job).status), "NAME_IN_USE");
  ASSERT_THAT(Delete(other).status, IsOk());
  ASSERT_THAT(Resume(job).status, IsOk());
  EXPECT_EQ(ReasonOf(Submit(spec).status()), "NAME_IN_USE");
}

TEST_F(ResumeTest, TheAttemptThatFailedIsFenced) {
  const std::string job = FailedJob();
  const uint64_t before = Epoch(job);
  ASSERT_THAT(Resume(job).status, IsOk());
  auto late = Update(job, before);
  late.mutable_attempt_update()->mutable_rank_ready()->set_rank(0);
  Say("w-1", std::move(late));
  EXPECT_EQ(Fences("w-1"), 1);
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  EXPECT_EQ(
      ReasonOf(Commit(job, before, v1::ARTIFACT_KIND_CHECKPOINT, 9).status()),
      "STALE_EPOCH");
}

TEST_F(ResumeTest, ItOutlivesARestartOfTheCoordinator) {
  const std::string job = FailedJob();
  Restart();
  ASSERT_THAT(Resume(job).status, IsOk());
  EXPECT_EQ(State(job), v1::JOB_STATE_QUEUED);
  Restart();
  Attach("w-1");
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  Succeed(job);
}

TEST_F(ResumeTest, OneThatWasNotStoredDidNotHappen) {
  const std::string job = FailedJob();
  ResumeCommand resume;
  resume.job_id = job;
  resume.failed = ReadFailed(job);
  resume.request = MakeRequest(Method::kResumeJob, "dropped", job);
  const Decision dropped =
      core().Apply({.ticket = 0, .what = std::move(resume)}, now());
  core().Reload(store().Load().value(), {dropped}, now());
  EXPECT_EQ(core().FindLive(job), std::nullopt);
  ASSERT_THAT(Resume(job, "dropped").status, IsOk());
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
}

}  // namespace
}  // namespace ft
