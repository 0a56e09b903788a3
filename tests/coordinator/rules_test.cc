// SPDX-License-Identifier: Apache-2.0
//
// The pure parts of the core: transition table, retry policy, leases,
// rendezvous, placement and scheduler.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <deque>

#include "coordinator/job_state.h"
#include "coordinator/lease_table.h"
#include "coordinator/proto_time.h"
#include "coordinator/reasons.h"
#include "coordinator/rendezvous.h"
#include "coordinator/retry_policy.h"
#include "coordinator/scheduler.h"
#include "coordinator/timers.h"
#include "coordinator/worker_health.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::testing::ElementsAre;
using testing::HasCode;
using ::testing::HasSubstr;
using testing::IsOk;

// --- The transition table ----------------------------------------------------

TEST(JobStateTest, EveryPairHasAtMostOneRow) {
  std::set<std::pair<int, int>> seen;
  for (const Transition& row : JobTransitions()) {
    EXPECT_TRUE(seen.insert({row.from, static_cast<int>(row.event)}).second)
        << ShortName(row.from) << " " << ShortName(row.event);
  }
}

TEST(JobStateTest, ATerminalStateIsLeftByDeletionAndAFailureByAPerson) {
  for (const Transition& row : JobTransitions()) {
    if (!IsTerminal(row.from)) continue;
    if (row.event == JobEvent::kDelete) {
      EXPECT_EQ(row.to, v1::JOB_STATE_UNSPECIFIED);
    } else if (row.event == JobEvent::kResume) {
      EXPECT_EQ(row.from, v1::JOB_STATE_FAILED);
      EXPECT_EQ(row.to, v1::JOB_STATE_QUEUED);
    } else {
      EXPECT_EQ(row.to, row.from);
    }
  }
}

TEST(JobStateTest, EveryLiveStateCanBeCancelled) {
  for (const Transition& row : JobTransitions()) {
    if (row.to == v1::JOB_STATE_UNSPECIFIED || IsTerminal(row.to)) continue;
    EXPECT_THAT(NextJobState(row.to, JobEvent::kCancel), IsOk())
        << ShortName(row.to);
  }
}

TEST(JobStateTest, WhateverIsNoRowIsRefusedWithItsReason) {
  EXPECT_EQ(
      ReasonOf(
          NextJobState(v1::JOB_STATE_QUEUED, JobEvent::kPublished).status()),
      "WRONG_STATE");
  EXPECT_EQ(
      ReasonOf(NextJobState(v1::JOB_STATE_FAILED, JobEvent::kCancel).status()),
      "JOB_ENDED");
  EXPECT_EQ(
      ReasonOf(NextJobState(v1::JOB_STATE_RUNNING, JobEvent::kDelete).status()),
      "JOB_LIVE");
}

// --- The retry policy --------------------------------------------------------

struct PolicyRow {
  AttemptOutcome outcome;
  RetryAction action;
};

RetryAction Judge(const AttemptOutcome& outcome,
                  const RetryHistory& history = {}) {
  return JudgeAttempt(outcome, history, "job-1", 7).action;
}

AttemptOutcome Exit(absl::StatusCode code) {
  return {.cause = v1::ATTEMPT_CAUSE_RANK_EXIT,
          .status_code = static_cast<int>(code),
          .worker_id = "w-1"};
}

TEST(RetryPolicyTest, EveryRowOfTheTable) {
  using enum RetryAction;
  const PolicyRow rows[] = {
      {Exit(absl::StatusCode::kAborted), kRetry},
      {{.cause = v1::ATTEMPT_CAUSE_WORKER_CRASH}, kRetry},
      {{.cause = v1::ATTEMPT_CAUSE_WORKER_LOST}, kRetry},
      {{.cause = v1::ATTEMPT_CAUSE_DEVICE_FAULT}, kRetry},
      {Exit(absl::StatusCode::kUnavailable), kRetryLater},
      {Exit(absl::StatusCode::kDeadlineExceeded), kRetryLater},
      {Exit(absl::StatusCode::kResourceExhausted), kRetryLater},
      {{.cause = v1::ATTEMPT_CAUSE_RANK_HANG}, kRetryLater},
      {{.cause = v1::ATTEMPT_CAUSE_START_TIMEOUT}, kRetryLater},
      {{.cause = v1::ATTEMPT_CAUSE_OOM_DEVICE}, kFail},
      {{.cause = v1::ATTEMPT_CAUSE_OOM_HOST}, kFail},
      {Exit(absl::StatusCode::kDataLoss), kRetryEarlier},
      {{.cause = v1::ATTEMPT_CAUSE_RANK_SIGNAL, .signal = SIGKILL}, kRetry},
      {{.cause = v1::ATTEMPT_CAUSE_RANK_SIGNAL, .signal = SIGSEGV},
       kRetryElsewhere},
      {Exit(absl::StatusCode::kInternal), kRetryElsewhere},
      {Exit(absl::StatusCode::kUnknown), kRetryElsewhere},
      {Exit(absl::StatusCode::kOk), kRetryElsewhere},
      {{.cause = v1::ATTEMPT_CAUSE_NON_FINITE}, kFail},
      {{.cause = v1::ATTEMPT_CAUSE_INVALID_ARGUMENT}, kFail},
      {{.cause = v1::ATTEMPT_CAUSE_DATA_ERROR}, kFail},
      {Exit(absl::StatusCode::kInvalidArgument), kFail},
      {Exit(absl::StatusCode::kPermissionDenied), kFail},
      {Exit(absl::StatusCode::kUnimplemented), kFail},
  };
  for (const PolicyRow& row : rows) {
    EXPECT_EQ(Judge(row.outcome), row.action)
        << ShortName(row.outcome.cause) << " " << row.outcome.status_code;
  }
}

TEST(RetryPolicyTest, TheSameCrashOnTwoWorkersOrThriceOnOneIsPoison) {
  const AttemptOutcome crash{.cause = v1::ATTEMPT_CAUSE_RANK_SIGNAL,
                             .signal = SIGSEGV,
                             .worker_id = "w-1",
                             .last_step = 3};
  AttemptOutcome elsewhere = crash;
  elsewhere.worker_id = "w-2";
  AttemptOutcome later = crash;
  later.last_step = 4;
  EXPECT_EQ(Judge(crash, {.earlier = {elsewhere}}), RetryAction::kHold);
  EXPECT_EQ(Judge(crash, {.earlier = {crash}}), RetryAction::kRetryElsewhere);
  EXPECT_EQ(Judge(crash, {.earlier = {crash, crash}}), RetryAction::kHold);
  EXPECT_EQ(Judge(crash, {.earlier = {later}}), RetryAction::kRetryElsewhere);
}

TEST(RetryPolicyTest, AKilledRankIsNeverPoison) {
  const AttemptOutcome killed{.cause = v1::ATTEMPT_CAUSE_RANK_SIGNAL,
                              .signal = SIGKILL,
                              .worker_id = "w-1"};
  EXPECT_EQ(Judge(killed, {.earlier = {killed, killed, killed}}),
            RetryAction::kRetry);
}

TEST(RetryPolicyTest, AHeldJobIsToldWhy) {
  const AttemptOutcome crash{.cause = v1::ATTEMPT_CAUSE_RANK_SIGNAL,
                             .signal = SIGSEGV,
                             .worker_id = "w-1",
                             .last_step = 3};
  AttemptOutcome elsewhere = crash;
  elsewhere.worker_id = "w-2";
  const RetryVerdict poison =
      JudgeAttempt(crash, {.earlier = {elsewhere}}, "job-1", 7);
  EXPECT_EQ(poison.reason, "POISON");
  EXPECT_THAT(poison.why,
              HasSubstr("after step 3 on two workers, w-2 and w-1"));
  const RetryVerdict stuck = JudgeAttempt(
      Exit(absl::StatusCode::kAborted),
      {.without_progress = 5, .max_without_progress = 5}, "job-1", 7);
  EXPECT_EQ(stuck.action, RetryAction::kHold);
  EXPECT_EQ(stuck.reason, "NO_PROGRESS");
  EXPECT_THAT(stuck.why, HasSubstr("5 attempts in a row"));
}

TEST(RetryPolicyTest, TheWaitDoublesUpToAMinute) {
  const AttemptOutcome busy = Exit(absl::StatusCode::kUnavailable);
  absl::Duration last;
  for (int tries = 1; tries <= 12; ++tries) {
    const RetryVerdict verdict = JudgeAttempt(
        busy, {.without_progress = tries, .max_without_progress = 100}, "job-1",
        7);
    EXPECT_GE(verdict.wait, last);
    EXPECT_LT(verdict.wait, absl::Seconds(60));
    last = verdict.wait;
  }
  EXPECT_GE(last, absl::Seconds(30));
}

TEST(RetryPolicyTest, TheFirstFaultNamesTheAttemptNotItsEcho) {
  const AttemptOutcome echo = Exit(absl::StatusCode::kAborted);
  const AttemptOutcome killed{.cause = v1::ATTEMPT_CAUSE_RANK_SIGNAL,
                              .signal = SIGKILL};
  const AttemptOutcome stopped{.cause = v1::ATTEMPT_CAUSE_STOPPED};
  const AttemptOutcome data{.cause = v1::ATTEMPT_CAUSE_DATA_ERROR};
  EXPECT_TRUE(IsMoreTelling(killed, echo));
  EXPECT_TRUE(IsMoreTelling(echo, stopped));
  EXPECT_TRUE(IsMoreTelling(data, killed));
  EXPECT_FALSE(IsMoreTelling(echo, killed));
}

// --- Workers at fault --------------------------------------------------------

const absl::Time kNoon = absl::FromUnixSeconds(1'800'000'000);

v1::Blame Crash(const std::string& job_id, absl::Time at) {
  v1::Blame blame;
  blame.set_job_id(job_id);
  *blame.mutable_at() = ToProto(at);
  return blame;
}

TEST(WorkerHealthTest, ThreeJobsWithinAnHourPutAWorkerIntoQuarantine) {
  WorkerHealth health;
  EXPECT_FALSE(health.Accuse("w-1", Crash("job-1", kNoon), kNoon));
  EXPECT_FALSE(health.Accuse("w-1", Crash("job-2", kNoon), kNoon));
  EXPECT_FALSE(health.Accuse("w-2", Crash("job-3", kNoon), kNoon));
  EXPECT_TRUE(health.Accuse("w-1", Crash("job-3", kNoon), kNoon));
  EXPECT_THAT(health.MarksOf("w-1").quarantine().reason(),
              HasSubstr("job-1, job-2, job-3"));
  EXPECT_FALSE(health.MarksOf("w-2").has_quarantine());
  // It is in quarantine once.
  EXPECT_FALSE(health.Accuse("w-1", Crash("job-4", kNoon), kNoon));
}

TEST(WorkerHealthTest, WhatIsOlderThanAnHourNoLongerCounts) {
  WorkerHealth health;
  const absl::Time later = kNoon + absl::Minutes(61);
  EXPECT_FALSE(health.Accuse("w-1", Crash("job-1", kNoon), kNoon));
  EXPECT_FALSE(health.Accuse("w-1", Crash("job-2", later), later));
  EXPECT_FALSE(health.Accuse("w-1", Crash("job-3", later), later));
  EXPECT_FALSE(health.Counts("w-1", kNoon, later));
  EXPECT_TRUE(health.Knows("w-1", "job-2"));
  EXPECT_FALSE(health.Knows("w-1", "job-1"));
}

TEST(WorkerHealthTest, AReleasedWorkerBeginsAnew) {
  WorkerHealth health;
  for (const char* job : {"job-1", "job-2", "job-3"}) {
    health.Accuse("w-1", Crash(job, kNoon), kNoon);
  }
  health.Release("w-1", kNoon + absl::Minutes(1));
  EXPECT_FALSE(health.MarksOf("w-1").has_quarantine());
  EXPECT_FALSE(health.Knows("w-1", "job-1"));
  EXPECT_FALSE(health.Counts("w-1", kNoon, kNoon + absl::Minutes(2)));
  EXPECT_TRUE(
      health.Counts("w-1", kNoon + absl::Minutes(2), kNoon + absl::Minutes(3)));
}

TEST(WorkerHealthTest, TheSecondHangWithinAnHourIsOneTooMany) {
  WorkerHealth health;
  EXPECT_FALSE(health.Hang("w-1", kNoon));
  EXPECT_FALSE(health.Hang("w-1", kNoon + absl::Minutes(61)));
  EXPECT_TRUE(health.Hang("w-1", kNoon + absl::Minutes(62)));
}

// --- Leases ------------------------------------------------------------------

TEST(LeaseTableTest, ASlowGangCannotWriteOverItsSuccessor) {
  LeaseTable leases(/*last_epoch=*/41);
  const uint64_t slow = leases.Grant("job-1");
  leases.End("job-1");
  const uint64_t successor = leases.Grant("job-1");

  EXPECT_EQ(slow, 42u);
  EXPECT_GT(successor, slow);
  EXPECT_THAT(leases.Check("job-1", slow), HasCode(absl::StatusCode::kAborted));
  EXPECT_THAT(leases.Check("job-1", successor), IsOk());
  EXPECT_THAT(leases.Check("job-2", successor),
              HasCode(absl::StatusCode::kAborted));
  EXPECT_EQ(leases.JobOf(slow), "");
  EXPECT_EQ(leases.JobOf(successor), "job-1");
}

// --- Rendezvous --------------------------------------------------------------

v1::RendezvousSet Set(uint64_t epoch, const std::string& key,
                      const std::string& value) {
  v1::RendezvousSet set;
  set.set_epoch(epoch);
  set.set_key(key);
  set.set_value(value);
  return set;
}

v1::RendezvousGet Get(uint64_t epoch, const std::string& key) {
  v1::RendezvousGet get;
  get.set_epoch(epoch);
  get.set_key(key);
  return get;
}

TEST(RendezvousTest, AKeyIsSetOnceAndWakesItsWaiters) {
  Rendezvous rendezvous;
  EXPECT_EQ(rendezvous.Get(Get(7, "id"), "w-2"), nullptr);
  EXPECT_EQ(rendezvous.Get(Get(7, "id"), "w-2"), nullptr);  // Sent again.
  const auto waiters = rendezvous.Set(Set(7, "id", "a"));
  ASSERT_THAT(waiters, IsOk());
  ASSERT_EQ(waiters->size(), 1u);
  EXPECT_EQ((*waiters)[0].worker_id, "w-2");
  EXPECT_THAT(rendezvous.Set(Set(7, "id", "a")), IsOk());
  EXPECT_THAT(rendezvous.Set(Set(7, "id", "b")),
              HasCode(absl::StatusCode::kAlreadyExists));
  EXPECT_EQ(*rendezvous.Get(Get(7, "id"), "w-3"), "a");
}

TEST(RendezvousTest, EpochsDoNotSeeEachOther) {
  Rendezvous rendezvous;
  ASSERT_THAT(rendezvous.Set(Set(7, "id", "a")), IsOk());
  EXPECT_EQ(rendezvous.Get(Get(8, "id"), "w-1"), nullptr);
  rendezvous.Drop(7);
  EXPECT_EQ(rendezvous.Get(Get(7, "id"), "w-1"), nullptr);
}

TEST(RendezvousTest, LimitsAreKept) {
  Rendezvous rendezvous;
  EXPECT_THAT(rendezvous.Set(Set(7, "k", std::string((64 << 10) + 1, 'x'))),
              HasCode(absl::StatusCode::kResourceExhausted));
  for (size_t i = 0; i < Rendezvous::kMaxKeys; ++i) {
    ASSERT_THAT(rendezvous.Set(Set(7, absl::StrCat(i), "v")), IsOk());
  }
  EXPECT_THAT(rendezvous.Set(Set(7, "more", "v")),
              HasCode(absl::StatusCode::kResourceExhausted));
}

TEST(RendezvousTest, WaitersAreBounded) {
  Rendezvous rendezvous;
  v1::RendezvousGet get = Get(7, "id");
  for (int rank = 0; rank < 5000; ++rank) {
    get.set_rank(rank);
    EXPECT_EQ(rendezvous.Get(get, "w-1"), nullptr);
  }
  EXPECT_EQ(rendezvous.Set(Set(7, "id", "a"))->size(), Rendezvous::kMaxWaiters);
}

// --- Placement and plan ------------------------------------------------------

WorkerOffer Offer(const std::string& id, int slots,
                  const std::string& isa = "avx2",
                  const std::string& digest = "d1") {
  WorkerOffer offer{
      .worker_id = id, .isa_class = isa, .models = {{"tiny", digest}}};
  for (int i = 0; i < slots; ++i) offer.slots.push_back({.slot = i});
  return offer;
}

GangDemand Demand(absl::string_view id, int ranks, int64_t seq = 1) {
  return {.job_id = id, .submit_seq = seq, .ranks = ranks, .model = "tiny"};
}

std::vector<std::string> WorkersOf(const Gang& gang) {
  std::vector<std::string> workers;
  for (const auto& rank : gang.placement.ranks()) {
    workers.push_back(rank.worker_id());
  }
  return workers;
}

std::vector<std::string> Placed(const Plan& plan) {
  std::vector<std::string> jobs;
  for (const PlannedGang& planned : plan.placements) {
    jobs.push_back(planned.job_id);
  }
  return jobs;
}

TEST(PlacementTest, AGangGetsAllItsSlotsOrNone) {
  EXPECT_FALSE(FindGang(Demand("j", 3), {Offer("a", 1), Offer("b", 1)}));
  const auto gang = FindGang(Demand("j", 2), {Offer("a", 1), Offer("b", 1)});
  ASSERT_TRUE(gang.has_value());
  EXPECT_THAT(WorkersOf(*gang), ElementsAre("a", "b"));
}

TEST(PlacementTest, TheSmallestWorkerThatTakesTheWholeGangWins) {
  const auto gang =
      FindGang(Demand("j", 2), {Offer("a", 4), Offer("b", 2), Offer("c", 1)});
  ASSERT_TRUE(gang.has_value());
  EXPECT_THAT(WorkersOf(*gang), ElementsAre("b", "b"));
}

TEST(PlacementTest, AGangIsOfOneIsaClassAndOneModelDigest) {
  EXPECT_FALSE(FindGang(Demand("j", 2),
                        {Offer("a", 1, "avx2"), Offer("b", 1, "avx512")}));
  EXPECT_FALSE(FindGang(Demand("j", 2), {Offer("a", 1, "avx2", "d1"),
                                         Offer("b", 1, "avx2", "d2")}));
  GangDemand any = Demand("j", 2);
  any.one_isa_class = false;
  EXPECT_TRUE(FindGang(any, {Offer("a", 1, "avx2"), Offer("b", 1, "avx512")}));
}

TEST(PlacementTest, AHeldSlotIsOnlyForItsJob) {
  WorkerOffer held = Offer("a", 1);
  held.slots[0].held_for = "other";
  EXPECT_FALSE(FindGang(Demand("j", 1), {held}));
  EXPECT_TRUE(FindGang(Demand("other", 1), {held}));
}

TEST(PlacementTest, AWorkerToBeAvoidedIsTakenWhereNothingElseFits) {
  GangDemand demand = Demand("j", 1);
  demand.avoid_workers = {"a"};
  EXPECT_THAT(WorkersOf(*FindGang(demand, {Offer("a", 1), Offer("b", 1)})),
              ElementsAre("b"));
  EXPECT_THAT(WorkersOf(*FindGang(demand, {Offer("a", 1)})), ElementsAre("a"));
}

TEST(SchedulerTest, PriorityGoesFirstThenAge) {
  GangDemand young = Demand("young", 1, 9);
  GangDemand old = Demand("old", 1, 1);
  GangDemand urgent = Demand("urgent", 1, 10);
  urgent.priority = 90;
  const Plan plan =
      MakePlan({young, old, urgent}, {Offer("a", 1), Offer("b", 1)});
  EXPECT_THAT(Placed(plan), ElementsAre("urgent", "old"));
  ASSERT_EQ(plan.waiting.size(), 1u);
  EXPECT_EQ(plan.waiting[0].why->kind, "NOT_ENOUGH_FREE");
}

TEST(SchedulerTest, ALargeGangIsNotStarvedBySmallOnes) {
  WorkerOffer busy = Offer("a", 2);
  busy.slots[0].is_free = false;
  const Plan plan =
      MakePlan({Demand("large", 2, 1), Demand("small", 1, 2)}, {busy});
  EXPECT_TRUE(plan.placements.empty());
}

TEST(SchedulerTest, AGangThatCanNeverFitBlocksNobody) {
  const Plan plan =
      MakePlan({Demand("huge", 8, 1), Demand("small", 1, 2)}, {Offer("a", 2)});
  EXPECT_THAT(Placed(plan), ElementsAre("small"));
  EXPECT_EQ(plan.waiting[0].why->kind, "NEVER_FITS");
  EXPECT_THAT(plan.waiting[0].why->text, HasSubstr("wants 8 slots"));
}

TEST(SchedulerTest, AShapeThatFailedIsNotTriedAgainButForItsHolder) {
  WorkerOffer held = Offer("a", 1);
  held.slots[0].held_for = "holder";
  const Plan plan = MakePlan(
      {Demand("first", 1, 1), Demand("second", 1, 2), Demand("holder", 1, 3)},
      {held});
  EXPECT_THAT(Placed(plan), ElementsAre("holder"));
  ASSERT_EQ(plan.waiting.size(), 2u);
  EXPECT_EQ(plan.waiting[1].job_id, "second");
  EXPECT_EQ(plan.waiting[1].jobs_ahead, 1);
  EXPECT_EQ(plan.waiting[1].why->kind, "NOT_ENOUGH_FREE");
}

TEST(SchedulerTest, AJobThatHoldsPartOfItsGangIsNotKeptFromTheRest) {
  WorkerOffer offer = Offer("a", 2);
  offer.slots[0].held_for = "holder";
  const Plan plan =
      MakePlan({Demand("first", 2, 1), Demand("holder", 2, 2)}, {offer});
  EXPECT_THAT(Placed(plan), ElementsAre("holder"));
}

TEST(SchedulerTest, ALargeQueueOverALargeFleetIsPlannedQuickly) {
  std::vector<WorkerOffer> fleet;
  for (int i = 0; i < 200; ++i) fleet.push_back(Offer(absl::StrCat(i), 4));
  std::deque<std::string> ids;
  std::vector<GangDemand> queue;
  for (int i = 0; i < 10'000; ++i) {
    ids.push_back(absl::StrCat("job-", i));
    queue.push_back(Demand(ids.back(), 1 + i % 4, i));
  }
  const Plan plan = MakePlan(queue, fleet);
  size_t ranks = 0;
  for (const PlannedGang& planned : plan.placements) {
    ranks += WorkersOf(planned.gang).size();
  }
  EXPECT_EQ(plan.placements.size() + plan.waiting.size(), 10'000u);
  EXPECT_GE(ranks, 780u);
}

TEST(SchedulerTest, TheReasonNamesTheConstraintWhoseRemovalStartsTheJob) {
  GangDemand other_model = Demand("j", 1);
  other_model.model = "huge";
  EXPECT_EQ(MakePlan({other_model}, {Offer("a", 1)}).waiting[0].why->kind,
            "NO_MODEL");
  EXPECT_EQ(MakePlan({Demand("j", 1)}, {}).waiting[0].why->kind, "NO_WORKER");
}

// --- Time --------------------------------------------------------------------

TEST(ObservedClockTest, OnlyObservedTimeCounts) {
  ObservedClock clock(absl::Seconds(1));
  const absl::Time wall = absl::FromUnixSeconds(1'000'000);
  clock.Observe(wall);
  const absl::Time start = clock.now();
  clock.Observe(wall + absl::Milliseconds(400));
  EXPECT_EQ(clock.now() - start, absl::Milliseconds(400));
  clock.Observe(wall + absl::Hours(5));  // A pause.
  clock.Observe(wall - absl::Hours(5));  // The clock was set back.
  EXPECT_EQ(clock.now() - start, absl::Milliseconds(400));
  clock.Observe(wall - absl::Hours(5) + absl::Seconds(1));
  EXPECT_EQ(clock.now() - start, absl::Milliseconds(1400));
}

}  // namespace
}  // namespace ft
