// SPDX-License-Identifier: Apache-2.0
//
// Clocks that jump, stand still or run at another speed: nobody is taken for
// lost, no deadline passes, and what came later stays later. And conditions,
// which come and go with their attempt.

#include "tests/coordinator/core_world.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::CoreWorld;

class ClockTest : public ::testing::TestWithParam<absl::Duration>,
                  public CoreWorld {};

TEST_P(ClockTest, AJumpExpiresNothingAndReordersNothing) {
  Attach("w-1");
  const std::string running = RunningOn("w-1");
  const std::string waiting = Submit(Spec()).value();
  for (int i = 0; i < 5; ++i) {
    Freeze(GetParam());
    CoreWorld::Run({.what = TickCommand{}});
    Pass(absl::Seconds(2), {"w-1"});
    EXPECT_EQ(State(running), v1::JOB_STATE_RUNNING);
  }
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_READY);
  EXPECT_EQ(Job(running).status().attempts_size(), 1);
  EXPECT_EQ(Fences("w-1"), 0);
  EXPECT_EQ(Stops("w-1"), 0);

  const std::string later = Submit(Spec()).value();
  EXPECT_LT(Job(waiting).submit_seq(), Job(later).submit_seq());
  const auto events = store().ListEvents(running, 0, 100).value();
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].job_seq(), static_cast<int64_t>(i) + 1);
  }
  // The one that came first goes first, whatever the clock said then.
  End("w-1", running,
      {.cause = v1::ATTEMPT_CAUSE_INVALID_ARGUMENT, .message = ""});
  Pass(absl::Seconds(2), {"w-1"});
  EXPECT_EQ(State(waiting), v1::JOB_STATE_STARTING);
  EXPECT_EQ(State(later), v1::JOB_STATE_QUEUED);
}

INSTANTIATE_TEST_SUITE_P(Jumps, ClockTest,
                         ::testing::Values(absl::Hours(1), -absl::Hours(1),
                                           absl::Hours(87'600),
                                           -absl::Hours(87'600),
                                           absl::Milliseconds(1001),
                                           absl::ZeroDuration()));

class SteadyClockTest : public ::testing::Test, public CoreWorld {};

TEST_F(SteadyClockTest, AClockOfTwiceTheSpeedExpiresNothing) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  // A heartbeat each second of the worker's clock is one each two of ours.
  for (int i = 0; i < 60; ++i) {
    Pass(absl::Seconds(2));
    Beat("w-1", {Epoch(job)});
  }
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(Job(job).status().attempts_size(), 1);
}

TEST_F(SteadyClockTest, AClockThatStandsStillExpiresNothing) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  for (int i = 0; i < 1000; ++i) CoreWorld::Run({.what = TickCommand{}});
  EXPECT_EQ(State(job), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(core().fleet().Find("w-1")->state, v1::WORKER_STATE_READY);
}

class ConditionTest : public ::testing::Test, public CoreWorld {
 protected:
  void Tell(const std::string& job_id, bool is_on) {
    v1::ConnectRequest message;
    v1::WorkerEvent& event = *message.mutable_event();
    event.set_job_id(job_id);
    event.set_epoch(Epoch(job_id));
    event.set_seq(++seq_);
    event.mutable_event()->set_kind(v1::EVENT_KIND_CONDITION);
    event.mutable_event()->set_message("no space");
    (*event.mutable_event()->mutable_fields())["type"] = "NO_SPACE";
    (*event.mutable_event()->mutable_fields())["is_on"] =
        is_on ? "true" : "false";
    Say("w-1", std::move(message));
  }
  int Told(const std::string& job_id) {
    const auto kinds = EventKinds(job_id);
    return static_cast<int>(
        std::count(kinds.begin(), kinds.end(), v1::EVENT_KIND_CONDITION));
  }

  int64_t seq_ = 0;
};

TEST_F(ConditionTest, ItComesAndGoesAndIsToldOnce) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  Tell(job, true);
  Tell(job, true);
  ASSERT_EQ(Job(job).status().conditions_size(), 1);
  EXPECT_EQ(Job(job).status().conditions(0).type(), "NO_SPACE");
  EXPECT_EQ(Job(job).status().conditions(0).reason(), "no space");
  EXPECT_EQ(Told(job), 1);
  Tell(job, false);
  EXPECT_EQ(Job(job).status().conditions_size(), 0);
  EXPECT_EQ(Told(job), 2);
}

TEST_F(ConditionTest, ItEndsWithItsAttempt) {
  Attach("w-1");
  const std::string job = RunningOn("w-1");
  Tell(job, true);
  KillRank("w-1", job);
  EXPECT_EQ(Job(job).status().conditions_size(), 0);
}

}  // namespace
}  // namespace ft
