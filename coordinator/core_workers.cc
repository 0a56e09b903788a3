// SPDX-License-Identifier: Apache-2.0
//
// What workers say, and what they are told.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/core.h"
#include "coordinator/proto_time.h"
#include "coordinator/reasons.h"

namespace ft {
namespace {

v1::AttemptEnded EndedBy(v1::AttemptCause cause, std::string message) {
  v1::AttemptEnded end;
  end.set_cause(cause);
  end.set_message(std::move(message));
  return end;
}

// Turns a condition on or off; whether that changed anything.
bool SetCondition(v1::JobStatus& status, const std::string& type, bool is_on,
                  const std::string& reason, absl::Time now) {
  auto& conditions = *status.mutable_conditions();
  const auto known = std::ranges::find(conditions, type, &v1::Condition::type);
  if (is_on == (known != conditions.end())) return false;
  if (is_on) {
    v1::Condition& condition = *conditions.Add();
    condition.set_type(type);
    condition.set_reason(reason);
    *condition.mutable_since() = ToProto(now);
  } else {
    conditions.erase(known);
  }
  return true;
}

}  // namespace

void Core::On(const WorkerCommand& command) {
  using Message = v1::ConnectRequest;
  const uint64_t session = command.session;
  if (command.message.has_attach()) {
    OnAttach(session, command.message.attach());
    return;
  }
  FleetWorker* worker = fleet_.Heard(session, clock_.now(), now_);
  if (worker == nullptr) {
    Emit(CloseSession{session, absl::UnavailableError("attach again")});
    return;
  }
  const std::string worker_id = worker->worker_id;
  switch (command.message.message_case()) {
    case Message::kHeartbeat:
      worker->inventory.set_disk_free_bytes(
          command.message.heartbeat().disk_free_bytes());
      OnHeartbeat(session, worker_id, command.message.heartbeat());
      break;
    case Message::kAttemptUpdate:
      OnUpdate(session, worker_id, command.message.attempt_update());
      break;
    case Message::kModels:
      worker->models.assign(command.message.models().models().begin(),
                            command.message.models().models().end());
      fleet_.MarkChanged();
      wants_schedule_ = true;
      break;
    case Message::kRendezvousSet:
      OnRendezvousSet(session, worker_id, command.message.rendezvous_set());
      break;
    case Message::kRendezvousGet:
      OnRendezvousGet(session, worker_id, command.message.rendezvous_get());
      break;
    case Message::kEvent:
      OnWorkerEvent(session, worker_id, command.message.event());
      break;
    case Message::kDrain:
      OnDrain(worker_id);
      break;
    default:  // From a newer worker.
      break;
  }
}

void Core::On(const DetachCommand& detach) {
  fleet_.Detach(detach.session, clock_.now());
}

// --- Attach ------------------------------------------------------------------

void Core::OnAttach(uint64_t session, const v1::Attach& attach) {
  const std::string& worker_id = attach.worker_id();
  const auto attachment = fleet_.Attach(session, attach, clock_.now(), now_);
  if (!attachment.ok()) {
    Emit(CloseSession{session, attachment.status()});
    return;
  }
  if (attachment->replaced_session != 0) {
    Emit(CloseSession{attachment->replaced_session,
                      absl::AbortedError("the worker attached again")});
  }
  if (attachment->is_new_instance) {
    LoseWorker(
        worker_id, v1::ATTEMPT_CAUSE_WORKER_CRASH,
        absl::StrCat("the daemon of worker ", worker_id, " was started anew"));
  }
  v1::ConnectResponse welcome;
  v1::Attached& attached = *welcome.mutable_attached();
  attached.set_incarnation(incarnation_);
  attached.set_heartbeat_ms(
      static_cast<int32_t>(absl::ToInt64Milliseconds(timers_.heartbeat)));
  for (const v1::AttachedAttempt& attempt : attach.attempts()) {
    const auto mark = spool_marks_.find({attempt.epoch(), worker_id});
    (*attached.mutable_durable_event_seq())[attempt.epoch()] =
        mark == spool_marks_.end() ? 0 : mark->second;
  }
  fleet_.SetSnapshots(worker_id,
                      {attach.snapshots().begin(), attach.snapshots().end()});
  Emit(ToWorker{session, std::move(welcome)});
  wants_schedule_ = true;
  Reconcile(attach);
}

// Compares what the worker holds with what it should hold. Orders are sent
// again; they are idempotent by epoch.
void Core::Reconcile(const v1::Attach& attach) {
  const std::string& worker_id = attach.worker_id();
  for (const v1::AttachedAttempt& held : attach.attempts()) {
    Member* member = nullptr;
    if (LeasedJob(held.job_id(), held.epoch(), worker_id, &member) == nullptr) {
      v1::ConnectResponse order;
      order.mutable_fence()->set_job_id(held.job_id());
      order.mutable_fence()->set_epoch(held.epoch());
      SendTo(worker_id, std::move(order));
      Count(Observation::Kind::kFenced, "attach");
    }
  }
  for (auto& [job_id, live] : live_) {
    if (!live.attempt.has_value()) continue;
    const auto member =
        std::ranges::find(live.attempt->members, worker_id, &Member::worker_id);
    if (member == live.attempt->members.end() ||
        member->phase == Member::Phase::kEnded) {
      continue;
    }
    const auto held = std::ranges::find(attach.attempts(), live.attempt->epoch,
                                        &v1::AttachedAttempt::epoch);
    ReconcileMember(live, *member,
                    held == attach.attempts().end() ? nullptr : &*held);
    Evaluate(live);
  }
}

void Core::ReconcileMember(LiveJob& live, Member& member,
                           const v1::AttachedAttempt* held) {
  LiveAttempt& attempt = *live.attempt;
  const v1::JobState state = live.job.status().state();
  const bool publishes = &member == &attempt.members[0];
  if (held == nullptr) {
    if (attempt.stopping) {
      MemberEnded(live, member, EndedBy(v1::ATTEMPT_CAUSE_STOPPED, ""));
    } else if (state == v1::JOB_STATE_STARTING) {
      OrderStart(live, member);
    } else if (state != v1::JOB_STATE_FINALIZING || publishes) {
      MemberEnded(live, member,
                  EndedBy(v1::ATTEMPT_CAUSE_WORKER_CRASH,
                          absl::StrCat("worker ", member.worker_id,
                                       " no longer has the attempt")));
    }
    return;
  }

  if (member.phase == Member::Phase::kOrdered) {
    member.phase = Member::Phase::kAccepted;
  }
  if (held->state() == v1::ATTEMPT_STATE_RUNNING) {
    for (const v1::RankPlacement& rank : AttemptOf(live).placement().ranks()) {
      if (rank.worker_id() == member.worker_id) {
        attempt.ready.insert(rank.rank());
      }
    }
  }
  v1::ConnectResponse order;
  if (attempt.stopping || state == v1::JOB_STATE_CANCELLING) {
    order.mutable_stop()->set_job_id(live.job.job_id());
    order.mutable_stop()->set_epoch(attempt.epoch);
  } else if (state == v1::JOB_STATE_RUNNING) {
    order.mutable_open_barrier()->set_job_id(live.job.job_id());
    order.mutable_open_barrier()->set_epoch(attempt.epoch);
  } else if (state == v1::JOB_STATE_YIELDING) {
    order.mutable_yield()->set_job_id(live.job.job_id());
    order.mutable_yield()->set_epoch(attempt.epoch);
    order.mutable_yield()->set_grace_ms(
        absl::ToInt64Milliseconds(timers_.yield_grace));
  } else if (state == v1::JOB_STATE_FINALIZING && publishes) {
    order.mutable_publish()->set_job_id(live.job.job_id());
    order.mutable_publish()->set_epoch(attempt.epoch);
    order.mutable_publish()->set_artifact_name(
        live.job.spec().export_().name());
  } else {
    return;
  }
  SendTo(member.worker_id, std::move(order));
}

void Core::LoseWorker(const std::string& worker_id, v1::AttemptCause cause,
                      const std::string& message) {
  wants_schedule_ = true;
  for (auto& [job_id, live] : live_) {
    if (!live.attempt.has_value()) continue;
    for (Member& member : live.attempt->members) {
      if (member.worker_id == worker_id) {
        MemberEnded(live, member, EndedBy(cause, message));
      }
    }
    Evaluate(live);
  }
}

// --- What attempts say -------------------------------------------------------

// The job that `epoch` acts for, if this worker still has a part in it.
Core::LiveJob* Core::LeasedJob(const std::string& job_id, uint64_t epoch,
                               const std::string& worker_id, Member** member) {
  if (!leases_.Check(job_id, epoch).ok()) return nullptr;
  LiveJob* live = FindJob(job_id);
  if (live == nullptr || !live->attempt.has_value()) return nullptr;
  const auto found =
      std::ranges::find(live->attempt->members, worker_id, &Member::worker_id);
  if (found == live->attempt->members.end() ||
      found->phase == Member::Phase::kEnded) {
    return nullptr;
  }
  *member = &*found;
  return live;
}

void Core::OnHeartbeat(uint64_t session, const std::string& worker_id,
                       const v1::Heartbeat& heartbeat) {
  v1::ConnectResponse answer;
  v1::HeartbeatReply& reply = *answer.mutable_heartbeat_reply();
  reply.set_seq(heartbeat.seq());
  for (const uint64_t epoch : heartbeat.epochs()) {
    Member* member = nullptr;
    if (LeasedJob(leases_.JobOf(epoch), epoch, worker_id, &member) != nullptr) {
      reply.add_valid_epochs(epoch);
    }
  }
  fleet_.SetSnapshots(
      worker_id, {heartbeat.snapshots().begin(), heartbeat.snapshots().end()});
  for (const auto& [job_id, shards] : fleet_.Find(worker_id)->snapshots) {
    if (WantsSnapshots(job_id, worker_id)) reply.add_kept_snapshot_jobs(job_id);
  }
  Emit(ToWorker{session, std::move(answer)});
}

void Core::OnUpdate(uint64_t session, const std::string& worker_id,
                    const v1::AttemptUpdate& update) {
  using Update = v1::AttemptUpdate;
  Member* member = nullptr;
  LiveJob* live =
      LeasedJob(update.job_id(), update.epoch(), worker_id, &member);
  if (live == nullptr) {
    Fence(session, update.job_id(), update.epoch(), "attempt_update");
    return;
  }
  LiveAttempt& attempt = *live->attempt;
  switch (update.update_case()) {
    case Update::kAccepted: {
      if (member->phase == Member::Phase::kOrdered) {
        member->phase = Member::Phase::kAccepted;
      }
      const bool all = std::ranges::none_of(attempt.members, [](const auto& m) {
        return m.phase == Member::Phase::kOrdered;
      });
      if (all && AttemptOf(*live).state() == v1::ATTEMPT_STATE_LEASED) {
        ChangeAttempt(*live, v1::ATTEMPT_STATE_STARTING,
                      "is taken; its ranks start");
      }
      break;
    }
    case Update::kRankReady:
      for (const v1::RankPlacement& rank :
           AttemptOf(*live).placement().ranks()) {
        if (rank.rank() == update.rank_ready().rank() &&
            rank.worker_id() == worker_id) {
          attempt.ready.insert(rank.rank());
        }
      }
      break;
    case Update::kRanksDone:
      member->phase = Member::Phase::kDone;
      break;
    case Update::kEnded:
      fleet_.SetSnapshots(worker_id, update.job_id(),
                          {update.ended().snapshots().begin(),
                           update.ended().snapshots().end()});
      // A worker that has done its part may say so in either way.
      if (update.ended().cause() == v1::ATTEMPT_CAUSE_COMPLETED) {
        member->phase = Member::Phase::kDone;
      } else {
        MemberEnded(*live, *member, update.ended());
      }
      break;
    default:
      break;
  }
  Evaluate(*live);
}

void Core::OnWorkerEvent(uint64_t session, const std::string& worker_id,
                         const v1::WorkerEvent& event) {
  Member* member = nullptr;
  LiveJob* live = LeasedJob(event.job_id(), event.epoch(), worker_id, &member);
  v1::ConnectResponse answer;
  answer.mutable_event_ack()->set_epoch(event.epoch());
  answer.mutable_event_ack()->set_seq(event.seq());
  if (live == nullptr) {
    Fence(session, event.job_id(), event.epoch(), "event");
    return;
  }
  int64_t& mark = spool_marks_[{event.epoch(), worker_id}];
  if (event.seq() > mark) {
    mark = event.seq();
    Write(PutSpoolMark{event.epoch(), worker_id, mark});
    const v1::Event& said = event.event();
    std::map<std::string, std::string> fields(said.fields().begin(),
                                              said.fields().end());
    // A condition that is told again is no news.
    if (said.kind() != v1::EVENT_KIND_CONDITION ||
        SetCondition(*live->job.mutable_status(), fields["type"],
                     fields["is_on"] == "true", said.message(), now_)) {
      Touch(*live);
      AddEvent(*live, said.kind(), event.epoch(), said.message(), fields);
    }
    if (event.has_metrics() && event.metrics().has_eval_loss()) {
      *live->job.mutable_status()->mutable_evaluation() = event.metrics();
      Touch(*live);
    }
  }
  Emit(ToWorker{session, std::move(answer)});
}

void Core::OnRendezvousSet(uint64_t session, const std::string& worker_id,
                           const v1::RendezvousSet& set) {
  Member* member = nullptr;
  LiveJob* live = LeasedJob(set.job_id(), set.epoch(), worker_id, &member);
  if (live == nullptr) {
    Fence(session, set.job_id(), set.epoch(), "rendezvous");
    return;
  }
  const auto waiters = rendezvous_.Set(set);
  if (!waiters.ok()) {
    // Two ranks that disagree about a key can never meet.
    if (live->attempt->stopping) return;
    v1::AttemptEnded end = EndedBy(v1::ATTEMPT_CAUSE_RANK_EXIT,
                                   std::string(waiters.status().message()));
    end.set_rank(set.rank());
    end.set_status_code(static_cast<int>(absl::StatusCode::kInternal));
    StopRest(*live, waiters.status().message());
    MemberEnded(*live, *member, std::move(end));
    Evaluate(*live);
    return;
  }
  for (const Rendezvous::Waiter& waiter : *waiters) {
    v1::ConnectResponse answer;
    v1::RendezvousReply& reply = *answer.mutable_rendezvous_reply();
    reply.set_job_id(set.job_id());
    reply.set_epoch(set.epoch());
    reply.set_rank(waiter.rank);
    reply.set_key(set.key());
    reply.set_value(set.value());
    SendTo(waiter.worker_id, std::move(answer));
  }
}

void Core::OnRendezvousGet(uint64_t session, const std::string& worker_id,
                           const v1::RendezvousGet& get) {
  Member* member = nullptr;
  if (LeasedJob(get.job_id(), get.epoch(), worker_id, &member) == nullptr) {
    Fence(session, get.job_id(), get.epoch(), "rendezvous");
    return;
  }
  const std::string* value = rendezvous_.Get(get, worker_id);
  if (value == nullptr) return;
  v1::ConnectResponse answer;
  v1::RendezvousReply& reply = *answer.mutable_rendezvous_reply();
  reply.set_job_id(get.job_id());
  reply.set_epoch(get.epoch());
  reply.set_rank(get.rank());
  reply.set_key(get.key());
  reply.set_value(*value);
  Emit(ToWorker{session, std::move(answer)});
}

void Core::OnDrain(const std::string& worker_id) {
  fleet_.SetDraining(worker_id, clock_.now());
  for (auto& [job_id, live] : live_) {
    if (!live.attempt.has_value() || live.attempt->stopping) continue;
    const bool is_here = std::ranges::any_of(
        live.attempt->members,
        [&](const Member& member) { return member.worker_id == worker_id; });
    const v1::JobState state = live.job.status().state();
    if (!is_here || !NextJobState(state, JobEvent::kDrain).ok()) continue;
    FT_CHECK(Move(live, JobEvent::kDrain).ok());
    live.attempt->deadline = clock_.now() + timers_.yield_grace;
    AttemptOf(live).set_state(v1::ATTEMPT_STATE_DRAINING);
    TouchAttempt(live);
    for (const Member& member : live.attempt->members) {
      v1::ConnectResponse order;
      order.mutable_yield()->set_job_id(job_id);
      order.mutable_yield()->set_epoch(live.attempt->epoch);
      order.mutable_yield()->set_grace_ms(
          absl::ToInt64Milliseconds(timers_.yield_grace));
      SendTo(member.worker_id, std::move(order));
    }
  }
}

// --- Workers at fault --------------------------------------------------------

// The job has got past `step`. Workers that it crashed at before that, and does
// without now, are at fault, not the job.
void Core::BlameWorkers(LiveJob& live, int64_t step) {
  const v1::JobStatus& status = live.job.status();
  const auto& now_on = AttemptOf(live).placement().ranks();
  for (int i = status.attempts_before_resume(); i + 1 < status.attempts_size();
       ++i) {
    const v1::Attempt& crashed = status.attempts(i);
    const std::string& worker_id = crashed.failed_worker_id();
    if (!IsCrash(OutcomeOf(crashed)) || crashed.last_step() >= step ||
        !health_.Counts(worker_id, FromProto(crashed.ended()), now_) ||
        health_.Knows(worker_id, live.job.job_id()) ||
        std::ranges::count(now_on, worker_id, &v1::RankPlacement::worker_id)) {
      continue;
    }
    v1::Blame blame;
    blame.set_job_id(live.job.job_id());
    blame.set_epoch(crashed.epoch());
    *blame.mutable_at() = crashed.ended();
    const bool is_quarantined = health_.Accuse(worker_id, blame, now_);
    const v1::WorkerMarks& marks = health_.MarksOf(worker_id);
    Write(PutWorker{worker_id, marks});
    fleet_.SetMarks(worker_id, marks, clock_.now());
    if (!is_quarantined) continue;
    const std::string& reason = marks.quarantine().reason();
    AddEvent(live, v1::EVENT_KIND_CONDITION, AttemptOf(live).epoch(),
             absl::StrCat("worker ", worker_id, " is QUARANTINED: ", reason),
             {{"worker", worker_id}, {"condition", "QUARANTINED"}});
    Touch(live);
    Write(AppendAudit{.at = now_,
                      .principal = "coordinator",
                      .method = "QuarantineWorker",
                      .resource = absl::StrCat("workers/", worker_id),
                      .detail = reason});
  }
}

void Core::SuspectAfterHang(const std::string& worker_id) {
  if (!health_.Hang(worker_id, now_)) return;
  fleet_.Suspect(worker_id, clock_.now() + timers_.hang_suspicion,
                 clock_.now());
}

void Core::On(const ReleaseWorkerCommand& release) {
  if (AnswerAgain(release.request)) return;
  const std::string& worker_id = release.worker_id;
  if (fleet_.Find(worker_id) == nullptr) {
    AnswerError(ReasonError(absl::StatusCode::kNotFound, v1::REASON_NOT_FOUND,
                            absl::StrCat("no worker ", worker_id)));
    return;
  }
  Write(
      AppendAudit{.at = now_,
                  .principal = release.request.key.principal,
                  .method = "ReleaseWorker",
                  .resource = absl::StrCat("workers/", worker_id),
                  .detail = health_.MarksOf(worker_id).quarantine().reason()});
  health_.Release(worker_id, now_);
  Write(PutWorker{worker_id, health_.MarksOf(worker_id)});
  fleet_.SetMarks(worker_id, health_.MarksOf(worker_id), clock_.now());
  fleet_.Suspect(worker_id, clock_.now(), clock_.now());
  Answer(release.request,
         ToWorkerInfo(*fleet_.Find(worker_id)).SerializeAsString());
}

void Core::Fence(uint64_t session, const std::string& job_id, uint64_t epoch,
                 absl::string_view kind) {
  v1::ConnectResponse order;
  order.mutable_fence()->set_job_id(job_id);
  order.mutable_fence()->set_epoch(epoch);
  Emit(ToWorker{session, std::move(order)});
  Count(Observation::Kind::kFenced, kind);
}

// An order for a worker without a stream is not lost: Reconcile sends it again.
void Core::SendTo(const std::string& worker_id, v1::ConnectResponse message) {
  const FleetWorker* worker = fleet_.Find(worker_id);
  if (worker == nullptr || worker->session == 0) return;
  Emit(ToWorker{worker->session, std::move(message)});
}

}  // namespace ft
