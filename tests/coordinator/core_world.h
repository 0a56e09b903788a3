// SPDX-License-Identifier: Apache-2.0
//
// The real core and a store in memory, with workers that say what a test wants.
// Effects are released after the commit, as the committer does.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "coordinator/core.h"
#include "coordinator/memory_job_store.h"
#include "coordinator/reasons.h"

namespace ft::testing {

// What a worker was told and has not looked at.
struct Inbox {
  std::vector<v1::ConnectResponse> messages;
  std::optional<absl::Status> closed;
};

class CoreWorld {
 public:
  CoreWorld() { Restart(); }

  // A new process over the same store; every stream is gone.
  void Restart() {
    core_ = std::make_unique<Core>(timers_, store_.Load().value(), now_);
    inboxes_.clear();
    sessions_.clear();
  }

  // --- Time ---

  // Lets time pass in small ticks, with heartbeats of these workers.
  void Pass(absl::Duration time, const std::vector<std::string>& alive = {}) {
    const absl::Time end = now_ + time;
    while (now_ < end) {
      now_ += absl::Milliseconds(100);
      for (const std::string& worker : alive) Beat(worker);
      Run({.what = TickCommand{}});
      Schedule();
    }
  }
  // A gap in which the core saw nothing.
  void Freeze(absl::Duration time) { now_ += time; }
  void Schedule() {
    while (core_->wants_schedule()) Run({.what = ScheduleCommand{}});
  }

  // --- Users ---

  static v1::JobSpec Spec(int ranks = 1) {
    v1::JobSpec spec;
    spec.set_schema("ft.v1");
    spec.set_name("hotel-bot");
    spec.set_priority(50);
    spec.mutable_model()->set_base("tiny");
    spec.mutable_resources()->mutable_ranks()->set_max(ranks);
    return spec;
  }
  static Request MakeRequest(Method method, const std::string& id,
                             const std::string& body) {
    Sha256 digest;
    digest.Update(body);
    Request request;
    request.key = {.principal = "admin",
                   .request_id = id,
                   .method = method,
                   .body_sha256 = digest.Finish()};
    return request;
  }
  absl::StatusOr<std::string> Submit(
      const v1::JobSpec& spec, std::optional<std::string> request_id = {}) {
    SubmitCommand submit;
    submit.spec = spec;
    submit.request =
        MakeRequest(Method::kCreateJob,
                    request_id.value_or(absl::StrCat("request-", ++requests_)),
                    spec.SerializeAsString());
    const Reply reply = Call(std::move(submit));
    if (!reply.status.ok()) return reply.status;
    v1::Job job;
    EXPECT_TRUE(job.ParseFromString(reply.response));
    Schedule();
    return job.job_id();
  }
  Reply Cancel(const std::string& job_id) {
    CancelCommand cancel;
    cancel.job_id = job_id;
    cancel.request = MakeRequest(Method::kCancelJob,
                                 absl::StrCat("request-", ++requests_), job_id);
    Reply reply = Call(std::move(cancel));
    Schedule();
    return reply;
  }
  // What a service reads before it resumes a FAILED job.
  std::optional<ResumeCommand::Failed> ReadFailed(const std::string& job_id) {
    const absl::StatusOr<v1::Job> job = store_.GetJob(job_id);
    if (!job.ok() || job->status().state() != v1::JOB_STATE_FAILED) return {};
    return ResumeCommand::Failed{
        .job = *job,
        .last_event_seq = store_.LastEventSeq(job_id).value(),
        .inputs = absl::OkStatus()};
  }
  Reply Resume(const std::string& job_id,
               std::optional<std::string> request_id = {}) {
    return ResumeWith(job_id, ReadFailed(job_id), std::move(request_id));
  }
  Reply ResumeWith(const std::string& job_id,
                   std::optional<ResumeCommand::Failed> failed,
                   std::optional<std::string> request_id = {}) {
    ResumeCommand resume;
    resume.job_id = job_id;
    resume.failed = std::move(failed);
    resume.request = MakeRequest(
        Method::kResumeJob,
        request_id.value_or(absl::StrCat("request-", ++requests_)), job_id);
    Reply reply = Call(std::move(resume));
    Schedule();
    return reply;
  }
  Reply ReleaseWorker(const std::string& worker) {
    ReleaseWorkerCommand release;
    release.worker_id = worker;
    release.request = MakeRequest(
        Method::kReleaseWorker, absl::StrCat("request-", ++requests_), worker);
    Reply reply = Call(std::move(release));
    Schedule();
    return reply;
  }
  Reply Delete(const std::string& job_id) {
    DeleteCommand erase;
    erase.job_id = job_id;
    erase.request = MakeRequest(Method::kDeleteJob,
                                absl::StrCat("request-", ++requests_), job_id);
    return Call(std::move(erase));
  }
  v1::Job Job(const std::string& job_id) {
    return store_.GetJob(job_id).value();
  }
  v1::JobState State(const std::string& job_id) {
    return Job(job_id).status().state();
  }
  v1::Attempt LastAttempt(const std::string& job_id) {
    return *Job(job_id).status().attempts().rbegin();
  }
  uint64_t Epoch(const std::string& job_id) {
    return LastAttempt(job_id).epoch();
  }

  // --- Workers ---

  struct Machine {
    int slots = 1;
    std::string isa = "avx2";
    std::string model = "tiny";
    std::string digest = "d1";
    std::string instance = "i1";
  };
  void Attach(const std::string& worker) { Attach(worker, Machine()); }
  void Attach(const std::string& worker, const Machine& machine,
              const std::vector<v1::AttachedAttempt>& held = {}) {
    const uint64_t session = ++last_session_;
    inboxes_[worker] = {};
    sessions_[worker] = session;
    WorkerCommand command{.session = session, .message = {}};
    v1::Attach& attach = *command.message.mutable_attach();
    attach.set_worker_id(worker);
    attach.set_instance_id(machine.instance);
    attach.mutable_inventory()->set_isa_class(machine.isa);
    for (int i = 0; i < machine.slots; ++i) {
      attach.mutable_inventory()->add_slots()->set_index(i);
    }
    if (!machine.model.empty()) {
      attach.add_models()->set_name(machine.model);
      attach.mutable_models(0)->set_digest(machine.digest);
    }
    for (const auto& attempt : held) *attach.add_attempts() = attempt;
    Run({.what = std::move(command)});
    Schedule();
  }
  static v1::AttachedAttempt Held(const std::string& job_id, uint64_t epoch,
                                  v1::AttemptState state) {
    v1::AttachedAttempt held;
    held.set_job_id(job_id);
    held.set_epoch(epoch);
    held.set_state(state);
    return held;
  }
  void Break(const std::string& worker) {
    Run({.what = DetachCommand{sessions_.at(worker)}});
  }
  void Beat(const std::string& worker, std::vector<uint64_t> epochs = {}) {
    v1::ConnectRequest message;
    message.mutable_heartbeat()->set_seq(1);
    for (const uint64_t epoch : epochs) {
      message.mutable_heartbeat()->add_epochs(epoch);
    }
    Say(worker, std::move(message));
  }
  void Say(const std::string& worker, v1::ConnectRequest message) {
    Run({.what = WorkerCommand{sessions_.at(worker), std::move(message)}});
    Schedule();
  }
  v1::ConnectRequest Update(const std::string& job_id, uint64_t epoch) {
    v1::ConnectRequest message;
    message.mutable_attempt_update()->set_job_id(job_id);
    message.mutable_attempt_update()->set_epoch(epoch);
    return message;
  }
  void Accept(const std::string& worker, const std::string& job_id) {
    auto message = Update(job_id, Epoch(job_id));
    message.mutable_attempt_update()->mutable_accepted();
    Say(worker, std::move(message));
  }
  void Ready(const std::string& worker, const std::string& job_id, int rank) {
    auto message = Update(job_id, Epoch(job_id));
    message.mutable_attempt_update()->mutable_rank_ready()->set_rank(rank);
    Say(worker, std::move(message));
  }
  void Done(const std::string& worker, const std::string& job_id) {
    auto message = Update(job_id, Epoch(job_id));
    message.mutable_attempt_update()->mutable_ranks_done();
    Say(worker, std::move(message));
  }
  struct Ending {
    v1::AttemptCause cause = v1::ATTEMPT_CAUSE_RANK_SIGNAL;
    int signal = 0;
    absl::StatusCode code = absl::StatusCode::kOk;
    int64_t last_step = 0;
    std::string message;
  };
  void End(const std::string& worker, const std::string& job_id,
           const Ending& ending) {
    auto message = Update(job_id, Epoch(job_id));
    v1::AttemptEnded& ended =
        *message.mutable_attempt_update()->mutable_ended();
    ended.set_cause(ending.cause);
    ended.set_signal(ending.signal);
    ended.set_status_code(static_cast<int>(ending.code));
    ended.set_last_step(ending.last_step);
    ended.set_message(ending.message);
    Say(worker, std::move(message));
  }
  // kill -9 of the one rank that a one-worker job has.
  void KillRank(const std::string& worker, const std::string& job_id,
                int64_t last_step = 0) {
    End(worker, job_id, {.signal = 9, .last_step = last_step, .message = ""});
  }

  // Memory ran out: no other try would be better.
  void FailRank(const std::string& worker, const std::string& job_id) {
    End(worker, job_id,
        {.cause = v1::ATTEMPT_CAUSE_OOM_HOST, .message = "out of memory"});
  }
  // SIGSEGV of it.
  void CrashRank(const std::string& worker, const std::string& job_id,
                 int64_t last_step = 0) {
    End(worker, job_id,
        {.signal = 11, .last_step = last_step, .message = "it crashed"});
  }
  // Every rank of a one-worker job is ready, and has taken this step.
  void StepTo(const std::string& job_id, int64_t step) {
    const v1::Attempt attempt = LastAttempt(job_id);
    for (const v1::RankPlacement& rank : attempt.placement().ranks()) {
      Ready(rank.worker_id(), job_id, rank.rank());
    }
    ProgressCommand progress{.job_id = job_id, .epoch = attempt.epoch()};
    progress.progress.emplace().set_step(step);
    Run({.what = std::move(progress)});
    Schedule();
  }
  std::string WorkerOf(const std::string& job_id) {
    return LastAttempt(job_id).placement().ranks(0).worker_id();
  }

  // Orders of one kind that the worker got, and forgets them.
  template <typename Get>
  int Take(const std::string& worker, Get has) {
    std::vector<v1::ConnectResponse>& messages = inboxes_[worker].messages;
    const auto is = [&](const v1::ConnectResponse& m) { return (m.*has)(); };
    const auto count = std::count_if(messages.begin(), messages.end(), is);
    std::erase_if(messages, is);
    return static_cast<int>(count);
  }
  int Starts(const std::string& worker) {
    return Take(worker, &v1::ConnectResponse::has_start_attempt);
  }
  int Barriers(const std::string& worker) {
    return Take(worker, &v1::ConnectResponse::has_open_barrier);
  }
  int Stops(const std::string& worker) {
    return Take(worker, &v1::ConnectResponse::has_stop);
  }
  int Fences(const std::string& worker) {
    return Take(worker, &v1::ConnectResponse::has_fence);
  }
  int Yields(const std::string& worker) {
    return Take(worker, &v1::ConnectResponse::has_yield);
  }
  int Publishes(const std::string& worker) {
    return Take(worker, &v1::ConnectResponse::has_publish);
  }
  const Inbox& InboxOf(const std::string& worker) { return inboxes_[worker]; }

  // Submits a job of one rank and brings it to RUNNING on `worker`.
  std::string RunningOn(const std::string& worker) {
    const std::string job_id = Submit(Spec()).value();
    Accept(worker, job_id);
    Ready(worker, job_id, 0);
    EXPECT_EQ(State(job_id), v1::JOB_STATE_RUNNING);
    return job_id;
  }

  // --- Artifacts ---

  absl::StatusOr<v1::Artifact> Commit(const std::string& job_id, uint64_t epoch,
                                      v1::ArtifactKind kind, int64_t step,
                                      const std::string& content = "content",
                                      const std::string& name = "") {
    CommitArtifactCommand commit;
    commit.manifest.set_kind(kind);
    commit.manifest.set_job_id(job_id);
    commit.manifest.set_epoch(epoch);
    commit.manifest.set_step(step);
    v1::FileEntry& file = *commit.manifest.add_files();
    file.set_path("weights");
    file.set_bytes(7);
    file.set_sha256(Sha256Hex(content));
    commit.commit.set_job_id(job_id);
    commit.commit.set_epoch(epoch);
    commit.commit.set_name(name);
    commit.commit.set_manifest_sha256(
        Sha256Hex(commit.manifest.SerializeAsString()));
    commit.request = MakeRequest(Method::kCommitArtifact,
                                 absl::StrCat("request-", ++requests_),
                                 commit.commit.SerializeAsString());
    const Reply reply = Call(std::move(commit));
    Schedule();
    if (!reply.status.ok()) return reply.status;
    v1::Artifact artifact;
    EXPECT_TRUE(artifact.ParseFromString(reply.response));
    return artifact;
  }
  absl::StatusOr<v1::Artifact> Checkpoint(
      const std::string& job_id, int64_t step,
      const std::string& content = "content") {
    return Commit(job_id, Epoch(job_id), v1::ARTIFACT_KIND_CHECKPOINT, step,
                  content);
  }
  absl::StatusOr<v1::Artifact> Publish(const std::string& job_id) {
    return Commit(job_id, Epoch(job_id), v1::ARTIFACT_KIND_ADAPTER, 10,
                  "adapter", Job(job_id).spec().export_().name());
  }

  // --- Machinery ---

  void Run(Command command) {
    const Decision decision = core_->Apply(command, now_);
    EXPECT_TRUE(store_.Commit(std::span(&decision, 1)).ok());
    for (const Effect& effect : decision.effects) Release(effect);
  }
  template <typename What>
  Reply Call(What what) {
    const uint64_t ticket = ++last_ticket_;
    Run({.ticket = ticket, .what = std::move(what)});
    const auto reply = replies_.find(ticket);
    EXPECT_NE(reply, replies_.end()) << "a call without an answer";
    return reply == replies_.end() ? Reply() : reply->second;
  }
  Core& core() { return *core_; }
  MemoryJobStore& store() { return store_; }
  const Timers& timers() const { return timers_; }
  absl::Time now() const { return now_; }
  std::vector<v1::EventKind> EventKinds(const std::string& job_id) {
    const std::vector<v1::Event> events =
        store_.ListEvents(job_id, 0, 1000).value();
    std::vector<v1::EventKind> kinds;
    for (const v1::Event& event : events) kinds.push_back(event.kind());
    return kinds;
  }

 private:
  void Release(const Effect& effect) {
    if (const auto* reply = std::get_if<Reply>(&effect)) {
      EXPECT_FALSE(replies_.contains(reply->ticket)) << "answered twice";
      replies_[reply->ticket] = *reply;
    } else if (const auto* order = std::get_if<ToWorker>(&effect)) {
      for (const auto& [worker, session] : sessions_) {
        if (session == order->session) {
          inboxes_[worker].messages.push_back(order->message);
        }
      }
    } else if (const auto* close = std::get_if<CloseSession>(&effect)) {
      for (const auto& [worker, session] : sessions_) {
        if (session == close->session) inboxes_[worker].closed = close->status;
      }
    }
  }

  const Timers timers_;
  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
  MemoryJobStore store_;
  std::unique_ptr<Core> core_;
  uint64_t last_session_ = 0;
  uint64_t last_ticket_ = 0;
  int requests_ = 0;
  std::map<std::string, Inbox> inboxes_;
  std::map<std::string, uint64_t> sessions_;
  std::map<uint64_t, Reply> replies_;
};

}  // namespace ft::testing
