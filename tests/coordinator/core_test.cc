// SPDX-License-Identifier: Apache-2.0
//
// The core's rules, told by users, workers and time.

#include "coordinator/core.h"

#include "tests/coordinator/core_world.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::CoreWorld;
using ::testing::ElementsAre;
using testing::HasCode;
using ::testing::HasSubstr;
using testing::IsOk;
using enum absl::StatusCode;

class CoreTest : public ::testing::Test, protected CoreWorld {};

// --- Users -------------------------------------------------------------------

TEST_F(CoreTest, AJobWithoutWorkersWaits) {
  const std::string job = Submit(Spec()).value();
  EXPECT_EQ(State(job), v1::JOB_STATE_QUEUED);
  EXPECT_THAT(EventKinds(job), ElementsAre(v1::EVENT_KIND_JOB_CREATED));
  EXPECT_EQ(Job(job).spec().export_().name(), job);
}

TEST_F(CoreTest, TheSameRequestTwiceIsOneJob) {
  const std::string first = Submit(Spec(), "once").value();
  EXPECT_EQ(Submit(Spec(), "once").value(), first);
  EXPECT_EQ(store().ListJobs({}).value().size(), 1u);
}

TEST_F(CoreTest, TheSameRequestIsAnsweredFromTheStoreAfterARestart) {
  const std::string first = Submit(Spec(), "once").value();
  Restart();
  SubmitCommand again;
  again.spec = Spec();
  again.request =
      MakeRequest(Method::kCreateJob, "once", Spec().SerializeAsString());
  again.request.stored = store().FindReply("admin", "once").value();
  ASSERT_TRUE(again.request.stored.has_value());
  v1::Job job;
  ASSERT_TRUE(job.ParseFromString(Call(std::move(again)).response));
  EXPECT_EQ(job.job_id(), first);
}

// Both were looked up before either was stored; a commit failed in between.
TEST_F(CoreTest, ATwinThatWaitedOverAFailedCommitIsAnsweredAgain) {
  const std::string first = Submit(Spec(), "once").value();
  SubmitCommand lost;
  lost.spec = Spec();
  lost.request =
      MakeRequest(Method::kCreateJob, "lost", Spec().SerializeAsString());
  const Decision dropped =
      core().Apply({.ticket = 99, .what = std::move(lost)}, now());
  core().Reload(store().Load().value(), {dropped}, now());
  EXPECT_EQ(Submit(Spec(), "once").value(), first);
  EXPECT_NE(Submit(Spec(), "lost").value(), first);
  EXPECT_EQ(store().ListJobs({}).value().size(), 2u);
}

TEST_F(CoreTest, ARequestIdWithAnotherBodyIsRefused) {
  ASSERT_THAT(Submit(Spec(), "once"), IsOk());
  const auto other = Submit(Spec(/*ranks=*/2), "once");
  EXPECT_THAT(other, HasCode(kInvalidArgument));
  EXPECT_EQ(ReasonOf(other.status()), "REQUEST_ID_REUSED");
  EXPECT_EQ(store().ListJobs({}).value().size(), 1u);
}

TEST_F(CoreTest, AModelNoWorkerHoldsIsRefusedWithTheKnownOnes) {
  Attach("w-1");
  v1::JobSpec spec = Spec();
  spec.mutable_model()->set_base("huge");
  const auto refused = Submit(spec);
  EXPECT_THAT(refused, HasCode(kInvalidArgument));
  EXPECT_EQ(ReasonOf(refused.status()), "UNKNOWN_MODEL");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("tiny"));
}

TEST_F(CoreTest, AnExportNameInUseIsRefused) {
  v1::JobSpec spec = Spec();
  spec.mutable_export_()->set_name("hotel");
  ASSERT_THAT(Submit(spec), IsOk());
  EXPECT_THAT(Submit(spec), HasCode(kAlreadyExists));
}

TEST_F(CoreTest, CancellingAQueuedJobEndsItAtOnce) {
  const std::string job = Submit(Spec()).value();
  EXPECT_THAT(Cancel(job).status, IsOk());
  EXPECT_EQ(State(job), v1::JOB_STATE_CANCELLED);
  EXPECT_THAT(Cancel(job).status, IsOk());
}

TEST_F(CoreTest, CancellingARunningJobStopsItsRanksFirst) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  EXPECT_THAT(Cancel(job).status, IsOk());
  EXPECT_EQ(State(job), v1::JOB_STATE_CANCELLING);
  EXPECT_EQ(Stops("w-1"), 1);
  End("w-1", job, {.cause = v1::ATTEMPT_CAUSE_STOPPED});
  EXPECT_EQ(State(job), v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(LastAttempt(job).cause(), v1::ATTEMPT_CAUSE_STOPPED);
}

TEST_F(CoreTest, AWorkerThatNeverSaysItStoppedIsFencedAfterTheGrace) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  Cancel(job);
  Pass(timers().stop_grace + absl::Seconds(1), {"w-1"});
  EXPECT_EQ(State(job), v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(Fences("w-1"), 1);
}

TEST_F(CoreTest, AnEndedJobCannotBeCancelledOtherwise) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  Done("w-1", job);
  ASSERT_THAT(Publish(job), IsOk());
  const absl::Status refused = Cancel(job).status;
  EXPECT_THAT(refused, HasCode(kFailedPrecondition));
  EXPECT_EQ(ReasonOf(refused), "JOB_ENDED");
}

TEST_F(CoreTest, OnlyEndedJobsAreDeletedWithTheirUnpinnedArtifacts) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  EXPECT_EQ(ReasonOf(Delete(job).status), "JOB_LIVE");
  ASSERT_THAT(Checkpoint(job, 5), IsOk());
  Done("w-1", job);
  ASSERT_THAT(Publish(job), IsOk());
  EXPECT_EQ(store().ListArtifacts(job, "", 10).value().size(), 2u);
  EXPECT_THAT(Delete(job).status, IsOk());
  EXPECT_THAT(store().GetJob(job), HasCode(kNotFound));
  EXPECT_TRUE(store().ListArtifacts(job, "", 10).value().empty());
  EXPECT_THAT(Delete(job).status, HasCode(kNotFound));
}

// --- The way of a job --------------------------------------------------------

TEST_F(CoreTest, AJobGoesFromSubmitToSucceeded) {
  Attach("w-1");
  const std::string job = Submit(Spec()).value();
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  EXPECT_EQ(Starts("w-1"), 1);
  Accept("w-1", job);
  EXPECT_EQ(LastAttempt(job).state(), v1::ATTEMPT_STATE_STARTING);
  Ready("w-1", job, 0);
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(Barriers("w-1"), 1);
  Done("w-1", job);
  EXPECT_EQ(State(job), v1::JOB_STATE_FINALIZING);
  EXPECT_EQ(Publishes("w-1"), 1);
  ASSERT_THAT(Publish(job), IsOk());

  const v1::Job ended = Job(job);
  EXPECT_EQ(ended.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(ended.status().artifact_name(), job);
  EXPECT_EQ(LastAttempt(job).cause(), v1::ATTEMPT_CAUSE_COMPLETED);
  EXPECT_EQ(ended.spec().model().digest(), "d1");
  EXPECT_THAT(
      EventKinds(job),
      ElementsAre(v1::EVENT_KIND_JOB_CREATED, v1::EVENT_KIND_ATTEMPT_STARTED,
                  v1::EVENT_KIND_STATE_CHANGED, v1::EVENT_KIND_ATTEMPT_CHANGED,
                  v1::EVENT_KIND_STATE_CHANGED, v1::EVENT_KIND_STATE_CHANGED,
                  v1::EVENT_KIND_ARTIFACT_PUBLISHED,
                  v1::EVENT_KIND_ATTEMPT_ENDED, v1::EVENT_KIND_STATE_CHANGED));
}

TEST_F(CoreTest, TheBarrierOpensOnlyWhenEveryRankIsReady) {
  Attach("w-1");
  Attach("w-2");
  const std::string job = Submit(Spec(/*ranks=*/2)).value();
  Ready("w-1", job, 0);
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  EXPECT_EQ(Barriers("w-1"), 0);
  Ready("w-1", job, 1);  // Not its rank.
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  Ready("w-2", job, 1);
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(Barriers("w-1"), 1);
  EXPECT_EQ(Barriers("w-2"), 1);
}

TEST_F(CoreTest, EveryRankOfAGangGetsTheSameSecretAndNoOtherAttemptDoes) {
  Attach("w-1");
  Attach("w-2");
  const std::string job = Submit(Spec(/*ranks=*/2)).value();
  const std::string one =
      InboxOf("w-1").messages.back().start_attempt().secret();
  EXPECT_EQ(one.size(), 32u);
  EXPECT_EQ(InboxOf("w-2").messages.back().start_attempt().secret(), one);
  KillRank("w-1", job);
  KillRank("w-2", job);
  EXPECT_NE(InboxOf("w-1").messages.back().start_attempt().secret(), one);
}

TEST_F(CoreTest, TheDeathOfARankStopsTheGangThenTriesAgain) {
  Attach("w-1");
  Attach("w-2");
  const std::string job = Submit(Spec(/*ranks=*/2)).value();
  Ready("w-1", job, 0);
  Ready("w-2", job, 1);
  ASSERT_THAT(Checkpoint(job, 4), IsOk());
  const uint64_t before = Epoch(job);

  KillRank("w-2", job, /*last_step=*/6);
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(Stops("w-1"), 1);
  End("w-1", job, {.cause = v1::ATTEMPT_CAUSE_RANK_EXIT, .code = kAborted});

  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  EXPECT_GT(Epoch(job), before);
  EXPECT_EQ(LastAttempt(job).source_step(), 4);
  EXPECT_FALSE(LastAttempt(job).source_manifest_sha256().empty());
  const v1::Attempt dead = Job(job).status().attempts(0);
  EXPECT_EQ(dead.cause(), v1::ATTEMPT_CAUSE_RANK_SIGNAL);
  EXPECT_EQ(dead.failed_worker_id(), "w-2");
  EXPECT_EQ(dead.last_step(), 6);
}

TEST_F(CoreTest, ARecoveringJobKeepsItsSlotsAWhile) {
  Attach("w-1");
  const std::string first = RunningOn("w-1");
  const std::string second = Submit(Spec()).value();
  End("w-1", first,
      {.cause = v1::ATTEMPT_CAUSE_RANK_EXIT, .code = kUnavailable});
  EXPECT_EQ(State(first), v1::JOB_STATE_RECOVERING);
  EXPECT_EQ(State(second), v1::JOB_STATE_QUEUED);
  Pass(absl::Seconds(2), {"w-1"});
  EXPECT_EQ(State(first), v1::JOB_STATE_STARTING);
  EXPECT_EQ(State(second), v1::JOB_STATE_QUEUED);
}

TEST_F(CoreTest, AHeldSlotIsFreeAgainAfterTheHold) {
  Attach("w-1");
  Attach("w-2");
  Pass(timers().restart_window, {"w-1", "w-2"});
  const std::string gang = Submit(Spec(/*ranks=*/2)).value();
  Ready("w-1", gang, 0);
  Ready("w-2", gang, 1);
  const std::string small = Submit(Spec()).value();
  Break("w-2");
  Pass(timers().reattach_grace + absl::Seconds(1), {"w-1"});
  End("w-1", gang, {.cause = v1::ATTEMPT_CAUSE_STOPPED});
  EXPECT_EQ(State(gang), v1::JOB_STATE_RECOVERING);
  EXPECT_EQ(State(small), v1::JOB_STATE_QUEUED);
  Pass(timers().recovery_hold + absl::Seconds(1), {"w-1"});
  EXPECT_EQ(State(gang), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(State(small), v1::JOB_STATE_STARTING);
}

TEST_F(CoreTest, ThreeAttemptsWithoutADurableStepHoldTheJob) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  KillRank("w-1", job);
  KillRank("w-1", job);
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  KillRank("w-1", job);
  EXPECT_EQ(State(job), v1::JOB_STATE_HELD);
  EXPECT_EQ(Job(job).status().reason(), "NO_PROGRESS");
  EXPECT_THAT(Job(job).status().message(), HasSubstr("3 attempts in a row"));
}

TEST_F(CoreTest, TheJobSaysHowManyFruitlessAttemptsItMayHave) {
  Attach("w-1");
  v1::JobSpec spec = Spec();
  spec.mutable_retry()->set_max_without_progress(5);
  const std::string job = Submit(spec).value();
  for (int i = 0; i < 4; ++i) KillRank("w-1", job);
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  KillRank("w-1", job);
  EXPECT_EQ(State(job), v1::JOB_STATE_HELD);
}

TEST_F(CoreTest, AHeldJobGivesItsSlotsBackAndWaitsForAPerson) {
  Attach("w-1");
  Attach("w-2");
  const std::string job = Submit(Spec()).value();
  StepTo(job, 3);
  CrashRank(WorkerOf(job), job, 3);
  ASSERT_EQ(State(job), v1::JOB_STATE_STARTING);
  StepTo(job, 3);
  CrashRank(WorkerOf(job), job, 3);
  EXPECT_EQ(State(job), v1::JOB_STATE_HELD);
  EXPECT_EQ(Job(job).status().reason(), "POISON");
  EXPECT_THAT(Job(job).status().message(),
              HasSubstr("after step 3 on two workers, w-1 and w-2"));
  const std::string other = Submit(Spec(2)).value();
  EXPECT_EQ(State(other), v1::JOB_STATE_STARTING);
  Pass(absl::Minutes(2), {"w-1", "w-2"});
  Restart();
  Pass(absl::Minutes(1));
  EXPECT_EQ(State(job), v1::JOB_STATE_HELD);
}

TEST_F(CoreTest, AResumedJobGoesOnAndItsPastNoLongerCounts) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  ASSERT_THAT(Checkpoint(job, 2), IsOk());
  for (int i = 0; i < 3; ++i) {
    StepTo(job, 3);
    CrashRank("w-1", job, 3);
  }
  ASSERT_EQ(State(job), v1::JOB_STATE_HELD);
  const Reply reply = Resume(job, "again");
  ASSERT_THAT(reply.status, IsOk());
  v1::Job answer;
  ASSERT_TRUE(answer.ParseFromString(reply.response));
  EXPECT_EQ(answer.status().state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  EXPECT_EQ(LastAttempt(job).source_step(), 2);
  EXPECT_EQ(Job(job).status().reason(), "");
  EXPECT_EQ(Job(job).status().attempts_without_progress(), 0);
  EXPECT_EQ(Job(job).status().attempts_before_resume(), 3);
  // The same request again changes nothing.
  EXPECT_EQ(Resume(job, "again").response, reply.response);
  StepTo(job, 3);
  CrashRank("w-1", job, 3);
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING) << "the past was counted";
}

TEST_F(CoreTest, OnlyAHeldJobIsResumed) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  EXPECT_EQ(ReasonOf(Resume(job).status), "WRONG_STATE");
  EXPECT_THAT(Resume("job-000000000000").status, HasCode(kNotFound));
  Done("w-1", job);
  ASSERT_THAT(Publish(job), IsOk());
  EXPECT_EQ(ReasonOf(Resume(job).status), "JOB_ENDED");
}

TEST_F(CoreTest, AHeldJobIsCancelledAtOnce) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  for (int i = 0; i < 3; ++i) KillRank("w-1", job);
  ASSERT_EQ(State(job), v1::JOB_STATE_HELD);
  EXPECT_THAT(Cancel(job).status, IsOk());
  EXPECT_EQ(State(job), v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(Job(job).status().reason(), "");
  EXPECT_EQ(Job(job).status().message(), "cancelled");
}

TEST_F(CoreTest, TheExitReportStaysWithTheAttempt) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  auto message = Update(job, Epoch(job));
  v1::AttemptEnded& ended = *message.mutable_attempt_update()->mutable_ended();
  ended.set_cause(v1::ATTEMPT_CAUSE_RANK_SIGNAL);
  ended.set_signal(11);
  ended.add_stack("PC: @ 0x1 Foo");
  for (int i = 0; i < 500; ++i) ended.add_log_tail(absl::StrCat("line ", i));
  Say("w-1", message);
  const v1::Attempt crashed = Job(job).status().attempts(0);
  EXPECT_EQ(crashed.signal(), 11);
  ASSERT_EQ(crashed.exit_report().log_tail_size(), 100);
  EXPECT_EQ(crashed.exit_report().log_tail(99), "line 499");
  EXPECT_EQ(crashed.exit_report().stack(0), "PC: @ 0x1 Foo");
  bool is_told = false;
  const std::vector<v1::Event> events = store().ListEvents(job, 0, 100).value();
  for (const v1::Event& event : events) {
    if (event.kind() != v1::EVENT_KIND_ATTEMPT_ENDED) continue;
    is_told = true;
    EXPECT_EQ(event.fields().at("signal"), "11");
    EXPECT_EQ(event.fields().at("stack"), "PC: @ 0x1 Foo");
  }
  EXPECT_TRUE(is_told);
}

// --- Workers at fault --------------------------------------------------------

class QuarantineTest : public CoreTest {
 protected:
  // A job crashes at `bad` after this step and is tried elsewhere.
  std::string CrashAt(const std::string& bad, int64_t step) {
    const std::string job = Submit(Spec()).value();
    EXPECT_EQ(WorkerOf(job), bad);
    StepTo(job, step);
    CrashRank(bad, job, step);
    EXPECT_NE(WorkerOf(job), bad);
    return job;
  }
  // Brings w-1 into quarantine.
  void Quarantine() {
    Attach("w-1");
    Attach("w-2", {.slots = 8});
    for (int i = 0; i < 3; ++i) StepTo(CrashAt("w-1", 3), 4);
    ASSERT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_QUARANTINED);
  }
};

TEST_F(QuarantineTest, CrashesOfThreeJobsThatGoOnElsewhere) {
  Attach("w-1");
  Attach("w-2", {.slots = 8});
  const std::string one = CrashAt("w-1", 3);
  const std::string two = CrashAt("w-1", 5);
  const std::string three = CrashAt("w-1", 0);
  StepTo(one, 4);
  StepTo(two, 5);  // As far as before: that proves nothing.
  StepTo(three, 1);
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_READY);
  StepTo(two, 6);
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_QUARANTINED);
  EXPECT_THAT(EventKinds(two), ::testing::Contains(v1::EVENT_KIND_CONDITION));
  ASSERT_EQ(store().Audit().size(), 1u);
  EXPECT_EQ(store().Audit()[0].resource, "workers/w-1");
  // It gets nothing more.
  EXPECT_EQ(WorkerOf(Submit(Spec()).value()), "w-2");
}

TEST_F(QuarantineTest, APoisonJobBlamesNoWorker) {
  for (const char* worker : {"w-1", "w-2", "w-3"}) Attach(worker);
  for (int i = 0; i < 4; ++i) {
    const std::string job = Submit(Spec()).value();
    while (State(job) == v1::JOB_STATE_STARTING) {
      StepTo(job, 3);
      CrashRank(WorkerOf(job), job, 3);
    }
    ASSERT_EQ(State(job), v1::JOB_STATE_HELD);
    // Also when somebody has mended it, and it then runs on one of them.
    ASSERT_THAT(Resume(job).status, IsOk());
    StepTo(job, 9);
    Cancel(job);
    End(WorkerOf(job), job, {.cause = v1::ATTEMPT_CAUSE_STOPPED});
  }
  for (const char* worker : {"w-1", "w-2", "w-3"}) {
    EXPECT_EQ(core().fleet().Find(worker)->marks.blames_size(), 0) << worker;
  }
}

TEST_F(QuarantineTest, ItSurvivesTheCoordinatorAndTheDaemon) {
  Quarantine();
  Restart();
  Attach("w-1", {.instance = "i2"});
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_QUARANTINED);
  Beat("w-1");
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_QUARANTINED);
  EXPECT_EQ(State(Submit(Spec()).value()), v1::JOB_STATE_QUEUED);
}

TEST_F(QuarantineTest, ReleaseEndsItForGood) {
  Quarantine();
  Restart();
  Attach("w-1");
  const std::string waiting = Submit(Spec()).value();
  ASSERT_EQ(State(waiting), v1::JOB_STATE_QUEUED);
  EXPECT_THAT(ReleaseWorker("w-1").status, IsOk());
  EXPECT_EQ(State(waiting), v1::JOB_STATE_STARTING);
  EXPECT_EQ(store().Audit().back().principal, "admin");
  EXPECT_EQ(store().Audit().back().method, "ReleaseWorker");
  EXPECT_THAT(ReleaseWorker("w-9").status, HasCode(kNotFound));
  Restart();
  Attach("w-1");
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_READY);
}

TEST_F(QuarantineTest, TwoHangsKeepNewAttemptsAwayForAWhile) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  ASSERT_THAT(Checkpoint(job, 1), IsOk());
  End("w-1", job, {.cause = v1::ATTEMPT_CAUSE_RANK_HANG});
  Pass(absl::Seconds(2), {"w-1"});
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  End("w-1", job, {.cause = v1::ATTEMPT_CAUSE_RANK_HANG});
  Pass(timers().hang_suspicion - absl::Seconds(1), {"w-1"});
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_SUSPECT);
  EXPECT_EQ(State(job), v1::JOB_STATE_QUEUED);
  Pass(absl::Seconds(2), {"w-1"});
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
}

// --- Rooms -------------------------------------------------------------------

TEST_F(CoreTest, AWorkerThatIsHeardAgainGetsWhatWaitsAtOnce) {
  Attach("w-1");
  Pass(timers().restart_window, {"w-1"});
  Pass(timers().suspect_after + absl::Milliseconds(200));
  const std::string job = Submit(Spec()).value();
  ASSERT_EQ(State(job), v1::JOB_STATE_QUEUED);
  Beat("w-1");
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
}

TEST_F(CoreTest, ADurableStepResetsTheCountOfFruitlessAttempts) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  for (int64_t step = 1; step <= 6; ++step) {
    Ready("w-1", job, 0);
    ASSERT_THAT(Checkpoint(job, step), IsOk());
    KillRank("w-1", job);
    ASSERT_EQ(State(job), v1::JOB_STATE_STARTING) << step;
    EXPECT_EQ(LastAttempt(job).source_step(), step);
  }
}

TEST_F(CoreTest, AnErrorOfTheUsersIsNotTriedAgain) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  End("w-1", job,
      {.cause = v1::ATTEMPT_CAUSE_INVALID_ARGUMENT,
       .message = "train.json:3: no field 'output'"});
  EXPECT_EQ(State(job), v1::JOB_STATE_FAILED);
  EXPECT_EQ(Job(job).status().reason(), "INVALID_ARGUMENT");
  EXPECT_EQ(Job(job).status().message(), "train.json:3: no field 'output'");
}

TEST_F(CoreTest, RanksThatNeverGetReadyTimeOut) {
  Attach("w-1");
  const std::string job = Submit(Spec()).value();
  Pass(timers().start_timeout + absl::Seconds(1), {"w-1"});
  EXPECT_EQ(Job(job).status().attempts(0).cause(),
            v1::ATTEMPT_CAUSE_START_TIMEOUT);
}

TEST_F(CoreTest, AGangLiesOnlyOnWorkersWithOneDigestOfTheModel) {
  Attach("w-1", {.digest = "d1"});
  Attach("w-2", {.digest = "d2"});
  const std::string job = Submit(Spec(/*ranks=*/2)).value();
  EXPECT_EQ(State(job), v1::JOB_STATE_QUEUED);
  Attach("w-3", {.digest = "d2"});
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  EXPECT_EQ(Job(job).spec().model().digest(), "d2");
}

TEST_F(CoreTest, ARetryStaysOnTheIsaClassOfTheFirstAttempt) {
  Attach("w-1", {.isa = "avx512"});
  Pass(timers().restart_window, {"w-1"});
  const std::string job = RunningOn("w-1");
  Attach("w-2", {.isa = "avx2"});
  Break("w-1");
  Pass(timers().recovery_hold + absl::Seconds(5), {"w-2"});
  EXPECT_EQ(State(job), v1::JOB_STATE_QUEUED);
  Attach("w-3", {.isa = "avx512"});
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  EXPECT_EQ(LastAttempt(job).placement().ranks(0).worker_id(), "w-3");
}

// --- Fencing -----------------------------------------------------------------

TEST_F(CoreTest, AnOldEpochIsRefusedAtEveryWrite) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  const uint64_t old = Epoch(job);
  KillRank("w-1", job);
  ASSERT_NE(Epoch(job), old);

  auto update = Update(job, old);
  update.mutable_attempt_update()->mutable_ranks_done();
  Say("w-1", update);
  EXPECT_EQ(Fences("w-1"), 1);
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);

  const auto commit =
      Commit(job, old, v1::ARTIFACT_KIND_CHECKPOINT, /*step=*/3);
  EXPECT_THAT(commit, HasCode(kAborted));
  EXPECT_EQ(ReasonOf(commit.status()), "STALE_EPOCH");

  v1::ConnectRequest set;
  set.mutable_rendezvous_set()->set_job_id(job);
  set.mutable_rendezvous_set()->set_epoch(old);
  set.mutable_rendezvous_set()->set_key("address");
  Say("w-1", set);
  EXPECT_EQ(Fences("w-1"), 1);

  v1::ConnectRequest event;
  event.mutable_event()->set_job_id(job);
  event.mutable_event()->set_epoch(old);
  event.mutable_event()->set_seq(1);
  Say("w-1", event);
  EXPECT_EQ(Fences("w-1"), 1);
}

TEST_F(CoreTest, AHeartbeatsAnswerNamesTheEpochsThatStillAct) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  Beat("w-1", {Epoch(job), 77});
  const auto& reply = InboxOf("w-1").messages.back().heartbeat_reply();
  EXPECT_THAT(reply.valid_epochs(), ElementsAre(Epoch(job)));
}

TEST_F(CoreTest, EpochsGrowOverRestarts) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  const uint64_t before = Epoch(job);
  Restart();
  Attach("w-1");  // It lost everything.
  EXPECT_GT(Epoch(job), before);
}

// --- Artifacts ---------------------------------------------------------------

TEST_F(CoreTest, OnlyTheNewestCheckpointsStay) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  for (const int64_t step : {2, 4, 6}) {
    ASSERT_THAT(Checkpoint(job, step, absl::StrCat(step)), IsOk());
  }
  const auto left = store().ListArtifacts(job, "", 10).value();
  ASSERT_EQ(left.size(), 2u);
  EXPECT_EQ(left[0].name(), job + "-step-000004");
  EXPECT_EQ(left[1].name(), job + "-step-000006");
  EXPECT_EQ(Job(job).status().checkpoint_step(), 6);
}

TEST_F(CoreTest, TheSameStepOfALaterAttemptMustHaveTheSameBytes) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  ASSERT_THAT(Checkpoint(job, 5, "bytes"), IsOk());
  KillRank("w-1", job);
  Ready("w-1", job, 0);
  EXPECT_THAT(Checkpoint(job, 5, "bytes"), IsOk());
  const auto diverged = Checkpoint(job, 5, "others");
  EXPECT_THAT(diverged, HasCode(kAlreadyExists));
  EXPECT_EQ(ReasonOf(diverged.status()), "DIVERGED");
  EXPECT_THAT(EventKinds(job), ::testing::Contains(v1::EVENT_KIND_DIVERGED));
}

TEST_F(CoreTest, TheDurableStepNeverGoesBack) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  ASSERT_THAT(Checkpoint(job, 8, "b"), IsOk());
  ASSERT_THAT(Checkpoint(job, 4, "a"), IsOk());
  EXPECT_EQ(Job(job).status().checkpoint_step(), 8);
}

TEST_F(CoreTest, ARunningJobCannotPublish) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  const auto early = Publish(job);
  EXPECT_THAT(early, HasCode(kFailedPrecondition));
  EXPECT_EQ(ReasonOf(early.status()), "WRONG_STATE");
}

TEST_F(CoreTest, APublisherThatDiesIsReplacedFromTheLastCheckpoint) {
  Attach("w-1");
  Attach("w-2");
  const std::string job = RunningOn("w-1");
  ASSERT_THAT(Checkpoint(job, 9), IsOk());
  Done("w-1", job);
  End("w-1", job, {.cause = v1::ATTEMPT_CAUSE_WORKER_CRASH});
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  EXPECT_EQ(LastAttempt(job).source_step(), 9);
}

}  // namespace
}  // namespace ft
