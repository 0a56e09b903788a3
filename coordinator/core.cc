// SPDX-License-Identifier: Apache-2.0

#include "coordinator/core.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/proto_time.h"
#include "coordinator/reasons.h"

namespace ft {
namespace {

// What is committed is found in the store; core's own memory bridges the time
// until then.
constexpr absl::Duration kRecent = absl::Seconds(30);

}  // namespace

Core::Core(const Timers& timers, Snapshot snapshot, absl::Time now)
    : timers_(timers),
      clock_(timers.observed_gap),
      fleet_(timers, clock_.now() + timers.restart_window),
      leases_(snapshot.last_epoch),
      cluster_key_(snapshot.cluster_key),
      incarnation_(snapshot.incarnation),
      next_progress_store_(clock_.now()),
      next_expiry_(clock_.now()),
      now_(now) {
  clock_.Observe(now);
  Install(std::move(snapshot));
}

void Core::Reload(Snapshot snapshot, const std::vector<Decision>& dropped,
                  absl::Time now) {
  now_ = now;
  clock_.Observe(now);
  // Other recent ones stay: a request that waits may have been looked up before
  // its twin was stored.
  for (const Decision& decision : dropped) {
    for (const Record& record : decision.records) {
      const auto* put = std::get_if<PutReply>(&record);
      if (put == nullptr) continue;
      const RequestKey& key = put->reply.key;
      recent_replies_.erase({key.principal, key.request_id});
    }
  }
  dirty_jobs_.clear();
  dirty_attempts_.clear();
  leases_ = LeaseTable(std::max(leases_.last_epoch(), snapshot.last_epoch));
  Install(std::move(snapshot));
}

void Core::Install(Snapshot snapshot) {
  std::map<std::string, LiveJob> before = std::exchange(live_, {});
  ended_.clear();
  artifacts_.clear();
  spool_marks_.clear();
  for (const auto& [job_id, live] : before) fleet_.Release(job_id);
  // A slot that was held for one attempt and given to a later one is the later
  // one's.
  std::ranges::stable_sort(snapshot.live, {}, [](const Snapshot::LiveJob& row) {
    const auto& attempts = row.job.status().attempts();
    return attempts.empty() ? 0 : attempts.rbegin()->epoch();
  });
  for (Snapshot::LiveJob& row : snapshot.live) {
    InstallJob(std::move(row), before);
  }
  for (const Snapshot::EndedJob& row : snapshot.ended) {
    ended_[row.job_id] = {.state = row.state, .etag = row.etag};
  }
  for (const ArtifactRow& row : snapshot.artifacts) {
    const v1::Artifact& artifact = row.artifact;
    artifacts_[artifact.name()] = KnownArtifact{
        .kind = artifact.kind(),
        .manifest_sha256 = artifact.manifest_sha256(),
        .files_sha256 = row.files_sha256,
        .job_id = artifact.manifest().job_id(),
        .step = artifact.manifest().step(),
        .pinned = artifact.pinned(),
        .created = FromProto(artifact.created()),
        .expires = artifact.has_expires() ? FromProto(artifact.expires())
                                          : absl::InfiniteFuture()};
  }
  for (const Snapshot::SpoolMark& mark : snapshot.spool_marks) {
    spool_marks_[{mark.epoch, mark.worker_id}] = mark.seq;
  }
  std::set<std::string> marked;
  for (const auto& [worker_id, marks] : health_.marks()) {
    marked.insert(worker_id);
  }
  health_.Install(snapshot.workers);
  for (const auto& [worker_id, marks] : health_.marks()) {
    marked.insert(worker_id);
  }
  for (const std::string& worker_id : marked) {
    fleet_.SetMarks(worker_id, health_.MarksOf(worker_id), clock_.now());
  }
  last_submit_seq_ = std::max(last_submit_seq_, snapshot.last_submit_seq);
  wants_schedule_ = true;
}

void Core::InstallJob(Snapshot::LiveJob row,
                      std::map<std::string, LiveJob>& before) {
  const std::string job_id = row.job.job_id();
  LiveJob& live = live_[job_id];
  live.job = std::move(row.job);
  live.last_event_seq = row.last_event_seq;
  const v1::JobStatus& status = live.job.status();
  live.reported_step = status.progress().step();
  if (const auto known = before.find(job_id); known != before.end()) {
    live.reported_step =
        std::max(live.reported_step, known->second.reported_step);
  }
  if (status.has_not_before()) {
    const absl::Duration wait = FromProto(status.not_before()) - now_;
    live.not_before =
        clock_.now() + std::clamp(wait, absl::ZeroDuration(), absl::Minutes(1));
  }
  if (status.attempts().empty()) return;

  const v1::Attempt& attempt = *status.attempts().rbegin();
  std::vector<std::string> workers;
  for (const v1::RankPlacement& rank : attempt.placement().ranks()) {
    if (workers.empty() || workers.back() != rank.worker_id()) {
      workers.push_back(rank.worker_id());
    }
  }
  const bool is_held = status.state() == v1::JOB_STATE_RECOVERING;
  const bool is_live = attempt.state() != v1::ATTEMPT_STATE_ENDED;
  if (!is_held && !is_live) return;
  for (const std::string& worker_id : workers) {
    if (fleet_.Find(worker_id) == nullptr) {
      fleet_.Expect(worker_id, clock_.now());
    }
  }
  if (is_held) {
    fleet_.Occupy(job_id, 0, attempt.placement());
    live.hold_until = clock_.now() + timers_.recovery_hold;
    return;
  }
  leases_.Adopt(job_id, attempt.epoch());
  if (status.state() != v1::JOB_STATE_FINALIZING) {
    fleet_.Occupy(job_id, attempt.epoch(), attempt.placement());
  }

  const auto known = before.find(job_id);
  if (known != before.end() && known->second.attempt.has_value() &&
      known->second.attempt->epoch == attempt.epoch()) {
    // The facts stay; what followed from them was not committed and is
    // concluded again.
    live.attempt = std::move(known->second.attempt);
    live.attempt->stopping = false;
    live.avoid_workers = known->second.avoid_workers;
  } else {
    live.attempt = LiveAttempt();
    live.attempt->epoch = attempt.epoch();
    const auto ended = recent_ends_.find(attempt.epoch());
    if (ended != recent_ends_.end()) {
      live.attempt->members = ended->second.members;
    } else {
      for (const std::string& worker_id : workers) {
        live.attempt->members.push_back({.worker_id = worker_id});
      }
    }
  }
  if (status.state() == v1::JOB_STATE_STARTING) {
    live.attempt->deadline = clock_.now() + timers_.start_timeout;
  } else if (status.state() == v1::JOB_STATE_YIELDING) {
    live.attempt->deadline = clock_.now() + timers_.yield_grace;
  }
}

Decision Core::Apply(const Command& command, absl::Time now) {
  now_ = now;
  clock_.Observe(now);
  ticket_ = command.ticket;
  decision_ = {};
  std::visit([this](const auto& what) { On(what); }, command.what);
  Flush();
  return std::move(decision_);
}

void Core::Flush() {
  for (const std::string& job_id : dirty_jobs_) {
    const auto entry = live_.find(job_id);
    if (entry == live_.end()) continue;
    LiveJob& live = entry->second;
    live.job.set_etag(live.job.etag() + 1);
    Write(PutJob{live.job});
    if (dirty_attempts_.contains(job_id)) {
      Write(PutAttempt{job_id, AttemptOf(live)});
    }
    Emit(JobChanged{std::make_shared<v1::Job>(live.job)});
    if (IsTerminal(live.job.status().state())) {
      ended_[job_id] = {.state = live.job.status().state(),
                        .etag = live.job.etag()};
      live_.erase(entry);
    }
  }
  dirty_jobs_.clear();
  dirty_attempts_.clear();
  if (fleet_.TakeReplan()) wants_schedule_ = true;
  if (fleet_.TakeChanged()) {
    auto workers = std::make_shared<std::vector<v1::WorkerInfo>>();
    for (const auto& [worker_id, worker] : fleet_.workers()) {
      workers->push_back(ToWorkerInfo(worker));
    }
    Emit(FleetChanged{std::move(workers)});
  }
}

void Core::AnswerError(const absl::Status& status) {
  if (ticket_ != 0) Emit(Reply{.ticket = ticket_, .status = status});
}

void Core::Answer(const Request& request, std::string response) {
  if (!request.key.request_id.empty()) {
    const StoredReply reply{.key = request.key, .reply = response};
    Write(PutReply{.reply = reply, .at = now_});
    recent_replies_[{request.key.principal, request.key.request_id}] =
        RecentReply{.reply = reply, .at = clock_.now()};
  }
  if (ticket_ != 0) {
    Emit(Reply{.ticket = ticket_, .response = std::move(response)});
  }
}

bool Core::AnswerAgain(const Request& request) {
  const StoredReply* known = nullptr;
  if (request.stored.has_value()) known = &*request.stored;
  const auto recent =
      recent_replies_.find({request.key.principal, request.key.request_id});
  if (recent != recent_replies_.end()) known = &recent->second.reply;
  if (known == nullptr) return false;

  if (known->key.method != request.key.method ||
      known->key.body_sha256 != request.key.body_sha256) {
    AnswerError(ReasonError(absl::StatusCode::kInvalidArgument,
                            v1::REASON_REQUEST_ID_REUSED,
                            absl::StrCat("request_id ", request.key.request_id,
                                         " was used for another request")));
  } else if (ticket_ != 0) {
    Emit(Reply{.ticket = ticket_, .response = known->reply});
  }
  return true;
}

Core::LiveJob* Core::FindJob(const std::string& job_id) {
  const auto entry = live_.find(job_id);
  return entry == live_.end() ? nullptr : &entry->second;
}

std::optional<v1::Job> Core::FindLive(const std::string& job_id) const {
  const auto entry = live_.find(job_id);
  if (entry == live_.end()) return std::nullopt;
  return entry->second.job;
}

absl::Status Core::Move(LiveJob& live, JobEvent event) {
  const v1::JobState from = live.job.status().state();
  const absl::StatusOr<v1::JobState> to = NextJobState(from, event);
  if (!to.ok()) {
    Count(Observation::Kind::kIllegal);
    return to.status();
  }
  if (*to == from) return absl::OkStatus();
  v1::JobStatus& status = *live.job.mutable_status();
  status.set_state(*to);
  if (IsTerminal(*to)) {
    *status.mutable_ended() = ToProto(now_);
    status.clear_not_before();
    Count(Observation::Kind::kFinished, ShortName(*to));
  } else {
    status.clear_ended();  // Of a FAILED job that is resumed.
  }
  if (event != JobEvent::kSubmit) {  // JOB_CREATED says it.
    std::map<std::string, std::string> fields = {
        {"from", std::string(ShortName(from))},
        {"to", std::string(ShortName(*to))}};
    if (!status.reason().empty()) fields["reason"] = status.reason();
    if (!status.message().empty()) fields["message"] = status.message();
    if (status.has_not_before()) {
      fields["not_before_us"] =
          absl::StrCat(absl::ToUnixMicros(FromProto(status.not_before())));
    }
    fields["without_progress"] =
        absl::StrCat(status.attempts_without_progress());
    AddEvent(live, v1::EVENT_KIND_STATE_CHANGED,
             leases_.EpochOf(live.job.job_id()),
             absl::StrCat(ShortName(from), " -> ", ShortName(*to),
                          status.reason().empty() ? "" : ": ", status.reason()),
             fields);
  }
  Count(Observation::Kind::kTransition, ShortName(from), ShortName(*to));
  Touch(live);
  wants_schedule_ = true;
  return absl::OkStatus();
}

void Core::AddEvent(LiveJob& live, v1::EventKind kind, uint64_t epoch,
                    std::string message,
                    const std::map<std::string, std::string>& fields) {
  v1::Event event;
  event.set_job_seq(++live.last_event_seq);
  *event.mutable_at() = ToProto(now_);
  event.set_kind(kind);
  event.set_job_id(live.job.job_id());
  event.set_epoch(epoch);
  event.set_message(std::move(message));
  event.mutable_fields()->insert(fields.begin(), fields.end());
  Write(AppendEvent{.event = event, .actor = "coordinator"});
  Emit(EventHappened{std::move(event)});
}

void Core::TouchAttempt(const LiveJob& live) {
  dirty_attempts_.insert(live.job.job_id());
  Touch(live);
}

v1::Attempt& Core::AttemptOf(LiveJob& live) {
  FT_CHECK(!live.job.status().attempts().empty());
  return *live.job.mutable_status()->mutable_attempts()->rbegin();
}

void Core::Count(Observation::Kind kind, absl::string_view a,
                 absl::string_view b, double value) {
  Emit(Observation{
      .kind = kind, .a = std::string(a), .b = std::string(b), .value = value});
}

void Core::On(const TickCommand&) {
  for (const Fleet::Loss& loss : fleet_.Judge(clock_.now())) {
    if (loss.session != 0) {
      Emit(CloseSession{loss.session,
                        absl::UnavailableError("no heartbeat came; attach "
                                               "again")});
    }
    LoseWorker(loss.worker_id, loss.cause,
               absl::StrCat("worker ", loss.worker_id, " silent for ",
                            absl::FormatDuration(loss.silent_for)));
  }
  const bool store_progress = clock_.now() >= next_progress_store_;
  if (store_progress) {
    next_progress_store_ = clock_.now() + timers_.progress_period;
    fleet_.MarkChanged();  // Heartbeats alone do not say so.
  }
  // Evaluate may end a job, but Flush alone takes it out of the map.
  for (auto& [job_id, live] : live_) {
    CheckDeadlines(live);
    Evaluate(live);
    if (store_progress && std::exchange(live.has_new_progress, false)) {
      live.attempt.has_value() ? TouchAttempt(live) : Touch(live);
    }
  }
  std::erase_if(recent_replies_, [this](const auto& entry) {
    return clock_.now() - entry.second.at > kRecent;
  });
  std::erase_if(recent_ends_, [this](const auto& entry) {
    return clock_.now() - entry.second.at > kRecent;
  });
  if (clock_.now() >= next_expiry_) {
    next_expiry_ = clock_.now() + absl::Minutes(1);
    ExpireArtifacts();
  }
}

}  // namespace ft
