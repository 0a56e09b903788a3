// SPDX-License-Identifier: Apache-2.0
//
// Attempts: from the plan to the end of the last rank.

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/digest.h"
#include "coordinator/attempt_facts.h"
#include "coordinator/core.h"
#include "coordinator/proto_time.h"

namespace ft {
namespace {

bool SameBits(const v1::JobSpec& spec) {
  const v1::Determinism& determinism = spec.determinism();
  const bool strict = !determinism.has_strict() || determinism.strict();
  return strict && determinism.isa() != v1::ISA_CHOICE_AVX2;
}

v1::AttemptEnded EndedBy(v1::AttemptCause cause, std::string message) {
  v1::AttemptEnded end;
  end.set_cause(cause);
  end.set_message(std::move(message));
  return end;
}

}  // namespace

// --- Placing -----------------------------------------------------------------

void Core::On(const ScheduleCommand&) {
  wants_schedule_ = false;
  Plan plan = MakePlan(Demands(), Offers());
  for (const PlannedGang& planned : plan.placements) {
    LiveJob* live = FindJob(planned.job_id);
    FT_CHECK(live != nullptr);
    Place(*live, planned.gang);
  }
  for (const auto& [job_id, live] : live_) {
    if (live.not_before <= clock_.now()) continue;
    plan.waiting.push_back(
        {job_id,
         std::make_shared<const WaitReason>(WaitReason{
             "BACKOFF", absl::StrCat("waits ",
                                     absl::FormatDuration(absl::Trunc(
                                         live.not_before - clock_.now(),
                                         absl::Milliseconds(100))),
                                     " after an attempt that failed")})});
  }
  Emit(WaitingChanged{
      std::make_shared<std::vector<Waiting>>(std::move(plan.waiting))});
}

std::vector<GangDemand> Core::Demands() const {
  std::vector<GangDemand> demands;
  demands.reserve(live_.size());
  for (const auto& [job_id, live] : live_) {
    const v1::JobState state = live.job.status().state();
    if (state != v1::JOB_STATE_QUEUED && state != v1::JOB_STATE_RECOVERING) {
      continue;
    }
    if (live.not_before > clock_.now()) continue;
    const v1::JobSpec& spec = live.job.spec();
    GangDemand demand{.job_id = job_id,
                      .priority = spec.has_priority() ? spec.priority() : 50,
                      .submit_seq = live.job.submit_seq(),
                      .ranks = std::max(1, spec.resources().ranks().max()),
                      .model = spec.model().base(),
                      .model_digest = spec.model().digest(),
                      .one_isa_class = SameBits(spec),
                      .avoid_workers = live.avoid_workers};
    if (!live.job.status().attempts().empty()) {
      demand.isa_class = live.job.status().attempts(0).isa_class();
    }
    demands.push_back(std::move(demand));
  }
  return demands;
}

std::vector<WorkerOffer> Core::Offers() const {
  std::vector<WorkerOffer> offers;
  for (const auto& [worker_id, worker] : fleet_.workers()) {
    if (worker.state != v1::WORKER_STATE_READY) continue;
    WorkerOffer offer{.worker_id = worker_id,
                      .isa_class = worker.inventory.isa_class()};
    for (const v1::ModelInfo& model : worker.models) {
      offer.models[model.name()] = model.digest();
    }
    for (const v1::Slot& slot : worker.inventory.slots()) {
      WorkerOffer::SlotOffer& slot_offer = offer.slots.emplace_back();
      slot_offer.slot = slot.index();
      const auto use = worker.used.find(slot.index());
      if (use == worker.used.end()) continue;
      slot_offer.is_free = use->second.epoch == 0;
      slot_offer.held_for = use->second.job_id;
    }
    offers.push_back(std::move(offer));
  }
  return offers;
}

void Core::Place(LiveJob& live, const Gang& gang) {
  const std::string& job_id = live.job.job_id();
  v1::JobStatus& status = *live.job.mutable_status();
  const uint64_t epoch = leases_.Grant(job_id);
  Write(PutLastEpoch{epoch});
  Emit(LeaseChanged{job_id, epoch});

  v1::Attempt& attempt = *status.add_attempts();
  attempt.set_epoch(epoch);
  attempt.set_number(status.attempts_size());
  attempt.set_state(v1::ATTEMPT_STATE_LEASED);
  *attempt.mutable_placement() = gang.placement;
  if (attempt.number() > 1) {
    KeepRanks(status.attempts(attempt.number() - 2).placement(),
              *attempt.mutable_placement());
  }
  *attempt.mutable_started() = ToProto(now_);
  attempt.set_isa_class(gang.isa_class);
  ChooseSource(live, attempt);
  if (!status.has_started()) {
    *status.mutable_started() = ToProto(now_);
    Count(Observation::Kind::kQueueWait, live.job.spec().queue(), "",
          absl::ToDoubleSeconds(now_ - FromProto(status.created())));
  }
  status.clear_not_before();
  live.not_before = absl::InfinitePast();
  live.job.mutable_spec()->mutable_model()->set_digest(gang.model_digest);
  live.hold_until = absl::InfiniteFuture();
  live.avoid_workers.clear();

  LiveAttempt& started = *(live.attempt = LiveAttempt());
  started.epoch = epoch;
  started.deadline = clock_.now() + timers_.start_timeout;
  for (const v1::RankPlacement& rank : attempt.placement().ranks()) {
    if (started.members.empty() ||
        started.members.back().worker_id != rank.worker_id()) {
      started.members.push_back({.worker_id = rank.worker_id()});
    }
  }
  fleet_.Occupy(job_id, epoch, attempt.placement());
  AddEvent(
      live, v1::EVENT_KIND_ATTEMPT_STARTED, epoch,
      absl::StrCat("attempt ", attempt.number(), " on ", started.members.size(),
                   " worker", started.members.size() == 1 ? "" : "s",
                   attempt.source_step() > 0
                       ? absl::StrCat(" from step ", attempt.source_step())
                       : ""),
      {{"number", absl::StrCat(attempt.number())},
       {"source_step", absl::StrCat(attempt.source_step())},
       {"source_manifest", attempt.source_manifest_sha256()},
       {"isa_class", attempt.isa_class()},
       {"model_digest", gang.model_digest},
       {"placement", TextOf(attempt.placement())}});
  FT_CHECK(Move(live, JobEvent::kPlace).ok());
  Count(Observation::Kind::kPlaced);
  TouchAttempt(live);
  for (const Member& member : started.members) OrderStart(live, member);
}

void Core::OrderStart(LiveJob& live, const Member& member) {
  const v1::Attempt& attempt = AttemptOf(live);
  v1::ConnectResponse order;
  v1::StartAttempt& start = *order.mutable_start_attempt();
  start.set_job_id(live.job.job_id());
  start.set_epoch(attempt.epoch());
  *start.mutable_spec() = live.job.spec();
  *start.mutable_placement() = attempt.placement();
  start.set_source_manifest_sha256(attempt.source_manifest_sha256());
  start.set_source_step(attempt.source_step());
  *start.mutable_source_snapshot_steps() = attempt.source_snapshot_steps();
  // The same for the whole gang, also when the order is sent again after a
  // restart, and never stored.
  start.set_secret(
      HmacSha256(cluster_key_, absl::StrCat("attempt/", attempt.epoch())));
  start.set_number(attempt.number());
  SendTo(member.worker_id, std::move(order));
}

// --- The way to the end ------------------------------------------------------

void Core::StopRest(LiveJob& live, absl::string_view why) {
  LiveAttempt& attempt = *live.attempt;
  attempt.stopping = true;
  attempt.deadline = clock_.now() + timers_.stop_grace;
  ChangeAttempt(live, v1::ATTEMPT_STATE_DRAINING,
                absl::StrCat("is being stopped: ", why));
  for (const Member& member : attempt.members) {
    if (member.phase == Member::Phase::kEnded) continue;
    v1::ConnectResponse order;
    order.mutable_stop()->set_job_id(live.job.job_id());
    order.mutable_stop()->set_epoch(attempt.epoch);
    order.mutable_stop()->set_reason(std::string(why));
    SendTo(member.worker_id, std::move(order));
  }
}

// Says the new state of the live attempt, which no change of the job's says.
void Core::ChangeAttempt(LiveJob& live, v1::AttemptState state,
                         const std::string& what) {
  v1::Attempt& attempt = AttemptOf(live);
  if (attempt.state() == state) return;
  attempt.set_state(state);
  TouchAttempt(live);
  AddEvent(live, v1::EVENT_KIND_ATTEMPT_CHANGED, attempt.epoch(),
           absl::StrCat("attempt ", attempt.number(), " ", what),
           {{"state", std::string(ShortName(state))}});
}

void Core::MemberEnded(LiveJob& live, Member& member, v1::AttemptEnded end) {
  if (member.phase == Member::Phase::kEnded) return;
  member.phase = Member::Phase::kEnded;
  member.end = std::move(end);
  v1::Attempt& attempt = AttemptOf(live);
  attempt.set_last_step(std::max(attempt.last_step(), member.end->last_step()));
}

void Core::Evaluate(LiveJob& live) {
  if (!live.attempt.has_value()) return;
  LiveAttempt& attempt = *live.attempt;
  const v1::JobState state = live.job.status().state();
  const auto is = [](Member::Phase phase) {
    return [phase](const Member& member) { return member.phase == phase; };
  };
  if (std::ranges::all_of(attempt.members, is(Member::Phase::kEnded))) {
    FinishAttempt(live);
    return;
  }
  if (attempt.stopping) return;

  // Once every rank is done, only the worker that publishes matters.
  const bool is_over =
      state == v1::JOB_STATE_FINALIZING
          ? attempt.members[0].phase == Member::Phase::kEnded
          : std::ranges::any_of(attempt.members, is(Member::Phase::kEnded));
  if (is_over || state == v1::JOB_STATE_CANCELLING) {
    // Workers that yielded end one by one, each in its time.
    const bool yielding =
        state == v1::JOB_STATE_YIELDING &&
        std::ranges::all_of(attempt.members, [](const Member& member) {
          return member.phase != Member::Phase::kEnded ||
                 member.end->cause() == v1::ATTEMPT_CAUSE_YIELDED;
        });
    if (!yielding) StopRest(live, "another part of the gang has ended");
    return;
  }

  const int world = AttemptOf(live).placement().ranks_size();
  if (state == v1::JOB_STATE_STARTING &&
      std::cmp_equal(attempt.ready.size(), world)) {
    OpenBarrier(live);
  } else if ((state == v1::JOB_STATE_RUNNING ||
              state == v1::JOB_STATE_YIELDING) &&
             std::ranges::all_of(attempt.members, is(Member::Phase::kDone))) {
    Finalize(live);
  }
}

void Core::OpenBarrier(LiveJob& live) {
  FT_CHECK(Move(live, JobEvent::kRanksReady).ok());
  AttemptOf(live).set_state(v1::ATTEMPT_STATE_RUNNING);
  live.attempt->deadline = absl::InfiniteFuture();
  TouchAttempt(live);
  for (const Member& member : live.attempt->members) {
    v1::ConnectResponse order;
    order.mutable_open_barrier()->set_job_id(live.job.job_id());
    order.mutable_open_barrier()->set_epoch(live.attempt->epoch);
    SendTo(member.worker_id, std::move(order));
  }
}

void Core::Finalize(LiveJob& live) {
  FT_CHECK(Move(live, JobEvent::kRanksDone).ok());
  live.attempt->deadline = absl::InfiniteFuture();
  fleet_.Release(live.job.job_id());
  TouchAttempt(live);
  BlameWorkers(live, std::numeric_limits<int64_t>::max());
  v1::ConnectResponse order;
  order.mutable_publish()->set_job_id(live.job.job_id());
  order.mutable_publish()->set_epoch(live.attempt->epoch);
  order.mutable_publish()->set_artifact_name(live.job.spec().export_().name());
  SendTo(live.attempt->members[0].worker_id, std::move(order));
}

// Writes the attempt's end into its row and takes its lease. The lease is over
// before anything else may start.
AttemptOutcome Core::RecordEnd(LiveJob& live) {
  v1::Attempt& attempt = AttemptOf(live);
  const v1::AttemptEnded* first = nullptr;
  AttemptOutcome outcome;
  for (const Member& member : live.attempt->members) {
    AttemptOutcome candidate{.cause = member.end->cause(),
                             .status_code = member.end->status_code(),
                             .signal = member.end->signal(),
                             .worker_id = member.worker_id};
    if (first == nullptr || IsMoreTelling(candidate, outcome)) {
      first = &*member.end;
      outcome = std::move(candidate);
    }
  }
  outcome.last_step = attempt.last_step();
  attempt.set_state(v1::ATTEMPT_STATE_ENDED);
  attempt.set_cause(outcome.cause);
  attempt.set_message(first->message());
  attempt.set_status_code(outcome.status_code);
  attempt.set_signal(outcome.signal);
  if (outcome.cause != v1::ATTEMPT_CAUSE_COMPLETED) {
    attempt.set_failed_worker_id(outcome.worker_id);
  }
  KeepExitReport(*first, attempt);
  *attempt.mutable_ended() = ToProto(now_);
  AddEvent(live, v1::EVENT_KIND_ATTEMPT_ENDED, attempt.epoch(),
           absl::StrCat("attempt ", attempt.number(),
                        " ended: ", ShortName(outcome.cause),
                        first->message().empty() ? "" : ": ", first->message()),
           FieldsOfEnd(attempt));
  Count(Observation::Kind::kAttemptEnded, ShortName(outcome.cause));
  leases_.End(live.job.job_id());
  Emit(LeaseChanged{live.job.job_id(), 0});
  rendezvous_.Drop(attempt.epoch());
  std::erase_if(spool_marks_, [&](const auto& mark) {
    return mark.first.first == attempt.epoch();
  });
  TouchAttempt(live);
  recent_ends_[attempt.epoch()] = {.members = std::move(live.attempt->members),
                                   .at = clock_.now()};
  live.attempt.reset();
  return outcome;
}

void Core::FinishAttempt(LiveJob& live) {
  const bool was_stopped = live.attempt->stopping;
  const AttemptOutcome outcome = RecordEnd(live);
  v1::JobStatus& status = *live.job.mutable_status();
  wants_schedule_ = true;
  status.clear_conditions();  // The next attempt tells its own.
  if (status.state() == v1::JOB_STATE_CANCELLING) {
    End(live, JobEvent::kAttemptEndedFail, "", "cancelled");
    return;
  }
  if (status.state() == v1::JOB_STATE_YIELDING) {
    FT_CHECK(Move(live, was_stopped ? JobEvent::kGraceOver
                                    : JobEvent::kAttemptEndedRetry)
                 .ok());
    fleet_.Release(live.job.job_id());
    return;
  }
  if (outcome.cause == v1::ATTEMPT_CAUSE_RANK_HANG) {
    SuspectAfterHang(outcome.worker_id);
  }
  Judge(live, outcome);
}

// Asks the retry policy what follows.
void Core::Judge(LiveJob& live, const AttemptOutcome& outcome) {
  v1::JobStatus& status = *live.job.mutable_status();
  const v1::Attempt& attempt = AttemptOf(live);
  const std::vector<int64_t> snapshots =
      SnapshotsOn(live.job.job_id(), attempt.placement());
  const int64_t newest = std::max(status.checkpoint_step(),
                                  snapshots.empty() ? 0 : snapshots.front());
  const bool has_progress = newest > attempt.source_step();
  status.set_attempts_without_progress(
      has_progress ? 0 : status.attempts_without_progress() + 1);
  RetryHistory history{.without_progress = status.attempts_without_progress()};
  const int32_t wanted = live.job.spec().retry().max_without_progress();
  if (wanted > 0) history.max_without_progress = wanted;
  for (int i = status.attempts_before_resume(); i + 1 < status.attempts_size();
       ++i) {
    history.earlier.push_back(OutcomeOf(status.attempts(i)));
  }
  const RetryVerdict verdict =
      JudgeAttempt(outcome, history, live.job.job_id(), attempt.epoch());
  switch (verdict.action) {
    case RetryAction::kFail:
      End(live, JobEvent::kAttemptEndedFail, verdict.reason, attempt.message());
      return;
    case RetryAction::kHold:
      Hold(live, verdict);
      return;
    default:
      Recover(live, verdict, outcome);
  }
}

void Core::Recover(LiveJob& live, const RetryVerdict& verdict,
                   const AttemptOutcome& outcome) {
  live.not_before = clock_.now() + verdict.wait;
  if (verdict.wait > absl::ZeroDuration()) {
    *live.job.mutable_status()->mutable_not_before() =
        ToProto(now_ + verdict.wait);
  }
  FT_CHECK(Move(live, JobEvent::kAttemptEndedRetry).ok());
  fleet_.Hold(live.job.job_id());
  live.hold_until = clock_.now() + timers_.recovery_hold;
  if (verdict.action == RetryAction::kRetryElsewhere) {
    live.avoid_workers.insert(outcome.worker_id);
  }
  live.skip_newest_checkpoint = verdict.action == RetryAction::kRetryEarlier;
}

// The job waits for a person; it keeps its checkpoints and no slot.
void Core::Hold(LiveJob& live, const RetryVerdict& verdict) {
  v1::JobStatus& status = *live.job.mutable_status();
  const std::string& last = AttemptOf(live).message();
  status.set_reason(verdict.reason);
  status.set_message(
      absl::StrCat(verdict.why, last.empty() ? "" : "; the last: ", last));
  FT_CHECK(Move(live, JobEvent::kAttemptEndedHold).ok());
  fleet_.Release(live.job.job_id());
}

void Core::CheckDeadlines(LiveJob& live) {
  const v1::JobState state = live.job.status().state();
  const absl::Time now = clock_.now();
  if (state == v1::JOB_STATE_RECOVERING && now >= live.hold_until) {
    live.hold_until = absl::InfiniteFuture();
    fleet_.Release(live.job.job_id());
    FT_CHECK(Move(live, JobEvent::kHoldExpired).ok());
  }
  if (live.not_before != absl::InfinitePast() && now >= live.not_before) {
    live.not_before = absl::InfinitePast();
    wants_schedule_ = true;
  }
  if (!live.attempt.has_value() || now < live.attempt->deadline) return;
  if (live.attempt->stopping) {
    FenceSilent(live);
  } else if (state == v1::JOB_STATE_STARTING) {
    TimeOutStart(live);
  } else if (state == v1::JOB_STATE_YIELDING) {
    // Grace is over: the ranks are killed, what they did since the last
    // checkpoint is lost, and the job waits its turn again.
    StopRest(live, "the grace to yield is over");
  }
}

// Nothing more will come from those who were stopped; fencing makes it safe to
// go on without them.
void Core::FenceSilent(LiveJob& live) {
  for (Member& member : live.attempt->members) {
    if (member.phase == Member::Phase::kEnded) continue;
    v1::ConnectResponse order;
    order.mutable_fence()->set_job_id(live.job.job_id());
    order.mutable_fence()->set_epoch(live.attempt->epoch);
    SendTo(member.worker_id, std::move(order));
    MemberEnded(live, member,
                EndedBy(v1::ATTEMPT_CAUSE_STOPPED,
                        "the worker did not say that it stopped"));
  }
}

// The first slow worker names the attempt; Evaluate stops the others.
void Core::TimeOutStart(LiveJob& live) {
  const auto& ranks = AttemptOf(live).placement().ranks();
  const std::string message = absl::StrCat(
      live.attempt->ready.size(), " of ", ranks.size(),
      " ranks were ready after ", absl::FormatDuration(timers_.start_timeout));
  for (Member& member : live.attempt->members) {
    const bool is_ready = std::ranges::all_of(ranks, [&](const auto& rank) {
      return rank.worker_id() != member.worker_id ||
             live.attempt->ready.contains(rank.rank());
    });
    if (is_ready || member.phase == Member::Phase::kEnded) continue;
    v1::ConnectResponse order;
    order.mutable_stop()->set_job_id(live.job.job_id());
    order.mutable_stop()->set_epoch(live.attempt->epoch);
    order.mutable_stop()->set_reason(message);
    SendTo(member.worker_id, std::move(order));
    MemberEnded(live, member,
                EndedBy(v1::ATTEMPT_CAUSE_START_TIMEOUT, message));
    return;
  }
}

}  // namespace ft
