// SPDX-License-Identifier: Apache-2.0
//
// The core's rules where workers come, go and come again, and where the
// coordinator does.

#include "coordinator/core.h"

#include "tests/coordinator/core_world.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::CoreWorld;
using testing::IsOk;

class CoreWorkersTest : public ::testing::Test, protected CoreWorld {};

// --- Restarts ----------------------------------------------------------------

TEST_F(CoreWorkersTest, ARunningAttemptIsAdoptedAfterARestart) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  const uint64_t epoch = Epoch(job);
  Restart();
  Attach("w-1", Machine(), {Held(job, epoch, v1::ATTEMPT_STATE_RUNNING)});
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(Epoch(job), epoch);
  EXPECT_EQ(Starts("w-1"), 0);
  EXPECT_EQ(Fences("w-1"), 0);
  Done("w-1", job);
  EXPECT_THAT(Publish(job), IsOk());
}

TEST_F(CoreWorkersTest,
       AnOrderThatTheWorkerNeverSawIsSentAgainWithTheSameSecret) {
  Attach("w-1");
  const std::string job = Submit(Spec()).value();
  const std::string secret =
      InboxOf("w-1").messages.back().start_attempt().secret();
  const uint64_t epoch = Epoch(job);
  Restart();
  Attach("w-1");
  ASSERT_FALSE(InboxOf("w-1").messages.empty());
  const auto& again = InboxOf("w-1").messages.back().start_attempt();
  EXPECT_EQ(again.epoch(), epoch);
  EXPECT_EQ(again.secret(), secret);
}

TEST_F(CoreWorkersTest, AnUnknownEpochIsFencedAtAttach) {
  Attach("w-1", Machine(),
         {Held("job-000000000000", 99, v1::ATTEMPT_STATE_RUNNING)});
  EXPECT_EQ(Fences("w-1"), 1);
}

TEST_F(CoreWorkersTest, NobodyIsJudgedInTheRestartWindow) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  const uint64_t epoch = Epoch(job);
  Restart();
  Pass(timers().restart_window - absl::Seconds(1));
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(Epoch(job), epoch);
  Pass(absl::Seconds(2));
  EXPECT_EQ(State(job), v1::JOB_STATE_RECOVERING);
  EXPECT_EQ(LastAttempt(job).cause(), v1::ATTEMPT_CAUSE_WORKER_LOST);
}

// A job that could not publish runs again; its slot is another's meanwhile.
TEST_F(CoreWorkersTest, ASlotIsNotGivenTwiceAfterARestart) {
  const std::string other = Submit(Spec()).value();
  v1::JobSpec urgent = Spec();
  urgent.set_priority(90);
  const std::string job = Submit(urgent).value();
  Attach("w-1");
  StepTo(job, 1);
  Done("w-1", job);
  StepTo(other, 1);
  End("w-1", job, {.signal = 9});
  ASSERT_EQ(State(job), v1::JOB_STATE_RECOVERING);

  Restart();
  Attach("w-1", Machine(),
         {Held(other, Epoch(other), v1::ATTEMPT_STATE_RUNNING)});
  EXPECT_EQ(Starts("w-1"), 0);
  EXPECT_EQ(State(job), v1::JOB_STATE_RECOVERING);
}

TEST_F(CoreWorkersTest, AFinishedGangPublishesAfterARestart) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  Done("w-1", job);
  Restart();
  Attach("w-1", Machine(), {Held(job, Epoch(job), v1::ATTEMPT_STATE_DRAINING)});
  EXPECT_EQ(Publishes("w-1"), 1);
  EXPECT_THAT(Publish(job), IsOk());
}

TEST_F(CoreWorkersTest, ACancelIsNotForgottenOverARestart) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  Cancel(job);
  Restart();
  Attach("w-1", Machine(), {Held(job, Epoch(job), v1::ATTEMPT_STATE_RUNNING)});
  EXPECT_GE(Stops("w-1"), 1);
  End("w-1", job, {.cause = v1::ATTEMPT_CAUSE_STOPPED});
  EXPECT_EQ(State(job), v1::JOB_STATE_CANCELLED);
}

// --- Workers -----------------------------------------------------------------

TEST_F(CoreWorkersTest, ASilentWorkerGetsNothingNewThenIsLost) {
  Attach("w-1");
  Pass(timers().restart_window, {"w-1"});
  const std::string job = RunningOn("w-1");
  Pass(timers().suspect_after + absl::Milliseconds(200));
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_SUSPECT);
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);
  Pass(timers().lost_after - timers().suspect_after);
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_LOST);
  EXPECT_EQ(LastAttempt(job).cause(), v1::ATTEMPT_CAUSE_WORKER_LOST);
  EXPECT_TRUE(InboxOf("w-1").closed.has_value());
}

TEST_F(CoreWorkersTest, ALateHeartbeatMakesASuspectReadyAgain) {
  Attach("w-1");
  Pass(timers().restart_window, {"w-1"});
  const std::string job = RunningOn("w-1");
  Pass(timers().suspect_after + absl::Milliseconds(200));
  Beat("w-1");
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_READY);
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);
}

TEST_F(CoreWorkersTest, ABrokenStreamIsACrashUnlessTheInstanceIsSoonBack) {
  Attach("w-1");
  Pass(timers().restart_window, {"w-1"});
  const std::string job = RunningOn("w-1");
  const uint64_t epoch = Epoch(job);
  Break("w-1");
  Pass(absl::Milliseconds(500));
  Attach("w-1", Machine(), {Held(job, epoch, v1::ATTEMPT_STATE_RUNNING)});
  Pass(absl::Seconds(2), {"w-1"});
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);

  Break("w-1");
  Pass(timers().reattach_grace + absl::Milliseconds(200));
  EXPECT_EQ(LastAttempt(job).cause(), v1::ATTEMPT_CAUSE_WORKER_CRASH);
}

TEST_F(CoreWorkersTest, ANewInstanceIsProofThatTheOldOneDied) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  Break("w-1");
  Attach("w-1", {.instance = "i2"});
  EXPECT_EQ(Job(job).status().attempts(0).cause(),
            v1::ATTEMPT_CAUSE_WORKER_CRASH);
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
}

TEST_F(CoreWorkersTest, ASecondDaemonWithTheSameNameIsRefused) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  WorkerCommand other{.session = 99, .message = {}};
  other.message.mutable_attach()->set_worker_id("w-1");
  other.message.mutable_attach()->set_instance_id("i2");
  const Decision decision = core().Apply({.what = other}, now());
  const auto* close = std::get_if<CloseSession>(&decision.effects.at(0));
  ASSERT_NE(close, nullptr);
  EXPECT_EQ(close->session, 99u);
  EXPECT_EQ(ReasonOf(close->status), "DUPLICATE_WORKER");
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);
}

TEST_F(CoreWorkersTest, APauseOfTheCoordinatorItselfKillsNobody) {
  Attach("w-1");
  Pass(timers().restart_window, {"w-1"});
  const std::string job = RunningOn("w-1");
  Freeze(absl::Minutes(10));
  Pass(absl::Seconds(1));
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_READY);
}

TEST_F(CoreWorkersTest, ADrainYieldsAndTheJobWaitsItsTurn) {
  Attach("w-1");
  Attach("w-2");
  const std::string job = RunningOn("w-1");
  v1::ConnectRequest drain;
  drain.mutable_drain();
  Say("w-1", drain);
  EXPECT_EQ(State(job), v1::JOB_STATE_YIELDING);
  EXPECT_EQ(Yields("w-1"), 1);
  ASSERT_THAT(Checkpoint(job, 7), IsOk());
  End("w-1", job, {.cause = v1::ATTEMPT_CAUSE_YIELDED});
  EXPECT_EQ(State(job), v1::JOB_STATE_STARTING);
  EXPECT_EQ(LastAttempt(job).source_step(), 7);
  EXPECT_EQ(LastAttempt(job).placement().ranks(0).worker_id(), "w-2");
}

TEST_F(CoreWorkersTest, AGangThatDoesNotYieldInTimeIsStopped) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  v1::ConnectRequest drain;
  drain.mutable_drain();
  Say("w-1", drain);
  Pass(timers().yield_grace + absl::Seconds(1), {"w-1"});
  EXPECT_EQ(Stops("w-1"), 1);
  End("w-1", job, {.cause = v1::ATTEMPT_CAUSE_STOPPED});
  EXPECT_EQ(State(job), v1::JOB_STATE_QUEUED);
}

TEST_F(CoreWorkersTest, AWorkersEventIsStoredOnceHoweverOftenItIsSent) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  v1::ConnectRequest message;
  v1::WorkerEvent& event = *message.mutable_event();
  event.set_job_id(job);
  event.set_epoch(Epoch(job));
  event.set_seq(1);
  event.mutable_event()->set_kind(v1::EVENT_KIND_EVALUATED);
  Say("w-1", message);
  Say("w-1", message);
  Restart();
  Attach("w-1", Machine(), {Held(job, Epoch(job), v1::ATTEMPT_STATE_RUNNING)});
  const auto& attached = InboxOf("w-1").messages.front().attached();
  EXPECT_EQ(attached.durable_event_seq().at(Epoch(job)), 1);
  Say("w-1", message);
  const auto kinds = EventKinds(job);
  EXPECT_EQ(std::count(kinds.begin(), kinds.end(), v1::EVENT_KIND_EVALUATED),
            1);
}

TEST_F(CoreWorkersTest, RanksMeetByKeysOfTheirEpoch) {
  Attach("w-1");
  Attach("w-2");
  const std::string job = Submit(Spec(/*ranks=*/2)).value();
  v1::ConnectRequest get;
  get.mutable_rendezvous_get()->set_job_id(job);
  get.mutable_rendezvous_get()->set_epoch(Epoch(job));
  get.mutable_rendezvous_get()->set_rank(1);
  get.mutable_rendezvous_get()->set_key("address/0");
  Say("w-2", get);
  v1::ConnectRequest set;
  set.mutable_rendezvous_set()->set_job_id(job);
  set.mutable_rendezvous_set()->set_epoch(Epoch(job));
  set.mutable_rendezvous_set()->set_key("address/0");
  set.mutable_rendezvous_set()->set_value("127.0.0.1:4000");
  Say("w-1", set);
  const auto& reply = InboxOf("w-2").messages.back().rendezvous_reply();
  EXPECT_EQ(reply.rank(), 1);
  EXPECT_EQ(reply.value(), "127.0.0.1:4000");
}

}  // namespace
}  // namespace ft
