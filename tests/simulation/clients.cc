// SPDX-License-Identifier: Apache-2.0
//
// The clients of a simulation: they submit, cancel, resume, delete, release,
// and send again what was not answered.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/reasons.h"
#include "tests/simulation/world.h"

namespace ft::testing {
namespace {

constexpr double kLoss = 0.1;
constexpr size_t kMostJobs = 40;

template <typename Command>
Command Named(const std::string& job_id, Method method,
              const std::string& request_id) {
  Command command;
  command.job_id = job_id;
  command.request.key = {.principal = "admin",
                         .request_id = request_id,
                         .method = method,
                         .body_sha256 = job_id};
  return command;
}

}  // namespace

std::string World::NewRequest() { return absl::StrCat("r-", ++requests_); }

std::string World::AnyJob() {
  return jobs_.empty() ? "" : jobs_[Roll(static_cast<int>(jobs_.size()))];
}

void World::ClientActs() {
  switch (Roll(12)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return Submit();
    case 4:
      return SubmitAgain();
    case 5:
      if (Chance(0.4)) Cancel(AnyJob());
      return;
    case 6:
    case 7:
      for (const auto& [job_id, timeline] : rules_.timelines()) {
        const v1::JobState state = timeline.status().state();
        if (state == v1::JOB_STATE_HELD ||
            (state == v1::JOB_STATE_FAILED && Chance(0.3))) {
          return Resume(job_id);
        }
      }
      return;
    case 8:
      return Delete(AnyJob());
    case 9:
      if (Chance(0.3)) ReleaseWorkers(/*all=*/false);
      return;
    case 10:
      return Resume(AnyJob());  // Mostly refused.
    default:
      return;
  }
}

void World::Submit() {
  if (sent_.size() >= kMostJobs) return;
  v1::JobSpec spec;
  spec.set_schema("ft.v1");
  spec.set_name(Chance(0.15) ? absl::StrCat("poison-", 1 + Roll(6)) : "sim");
  spec.set_priority(10 * Roll(3));
  spec.mutable_model()->set_base("tiny");
  spec.mutable_resources()->mutable_ranks()->set_max(1 + Roll(3));
  spec.mutable_schedule()->set_steps(5 + Roll(20));
  if (Chance(0.3)) {
    spec.mutable_retry()->set_max_without_progress(1 + Roll(6));
  }
  sent_.push_back({.request_id = NewRequest(), .spec = spec, .job_id = ""});
  SendSubmit(sent_.back().request_id, spec);
}

// Some request again: the one that was not answered, or one that was, or its
// id with another body.
void World::SubmitAgain() {
  if (sent_.empty()) return;
  const Sent& again = sent_[Roll(static_cast<int>(sent_.size()))];
  v1::JobSpec spec = again.spec;
  if (Chance(0.2)) spec.set_name("other");
  SendSubmit(again.request_id, spec);
}

void World::SendSubmit(const std::string& request_id, const v1::JobSpec& spec) {
  SubmitCommand submit;
  submit.spec = spec;
  submit.request.key = {.principal = "admin",
                        .request_id = request_id,
                        .method = Method::kCreateJob,
                        .body_sha256 = spec.SerializeAsString()};
  Call(std::move(submit), storming_ ? kLoss : 0,
       [this, request_id, body = spec.SerializeAsString()](const Reply& reply) {
         const auto sent =
             std::ranges::find(sent_, request_id, &Sent::request_id);
         const bool is_same = sent->spec.SerializeAsString() == body;
         if (!reply.status.ok()) {
           if (is_same && ReasonOf(reply.status) == "REQUEST_ID_REUSED" &&
               !sent->job_id.empty()) {
             rules_.Fail(absl::StrCat(request_id, " was refused as reused"));
           }
           return;
         }
         v1::Job job;
         job.ParseFromString(reply.response);
         if (!sent->job_id.empty() && sent->job_id != job.job_id()) {
           return rules_.Fail(absl::StrCat(request_id, " made ", sent->job_id,
                                           " and ", job.job_id()));
         }
         if (sent->job_id.empty()) {
           sent->job_id = job.job_id();
           if (!is_same) sent->spec.ParseFromString(body);
           jobs_.push_back(job.job_id());
         } else if (!is_same) {
           rules_.Fail(absl::StrCat(request_id, " had two bodies"));
         }
         rules_.Acknowledged(job.job_id());
       });
}

void World::Cancel(const std::string& job_id) {
  if (job_id.empty()) return;
  const std::string request = NewRequest();
  const auto command =
      Named<CancelCommand>(job_id, Method::kCancelJob, request);
  Call(command, kLoss, [](const Reply&) {});
  if (Chance(0.3)) Call(command, kLoss, [](const Reply&) {});
}

// Somebody looked at the job, and mostly mended it.
void World::Resume(const std::string& job_id) {
  if (job_id.empty()) return;
  if (!storming_ || Chance(0.6)) poison_[job_id] = -1;
  const std::string request = NewRequest();
  const auto command =
      Named<ResumeCommand>(job_id, Method::kResumeJob, request);
  Call(command, storming_ ? kLoss : 0, [](const Reply&) {});
  if (Chance(0.3)) Call(command, kLoss, [](const Reply&) {});
}

void World::ReadFailed(ResumeCommand& resume) {
  const absl::StatusOr<v1::Job> job = store_.GetJob(resume.job_id);
  if (!job.ok() || job->status().state() != v1::JOB_STATE_FAILED) return;
  resume.failed = ResumeCommand::Failed{
      .job = *job,
      .last_event_seq = store_.LastEventSeq(resume.job_id).value(),
      .inputs = absl::OkStatus()};
}

void World::Delete(const std::string& job_id) {
  if (job_id.empty()) return;
  const std::string request = NewRequest();
  const auto command =
      Named<DeleteCommand>(job_id, Method::kDeleteJob, request);
  Call(command, kLoss, [](const Reply&) {});
  if (Chance(0.3)) Call(command, kLoss, [](const Reply&) {});
}

void World::ReleaseWorkers(bool all) {
  for (const auto& worker : workers_) {
    if (!all && !rules_.IsQuarantined(worker->id)) continue;
    ReleaseWorkerCommand release;
    release.worker_id = worker->id;
    release.request.key = {.principal = "admin",
                           .request_id = NewRequest(),
                           .method = Method::kReleaseWorker,
                           .body_sha256 = worker->id};
    Call(std::move(release), storming_ ? kLoss : 0, [](const Reply&) {});
  }
}

}  // namespace ft::testing
