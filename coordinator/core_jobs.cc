// SPDX-License-Identifier: Apache-2.0
//
// What users do with jobs, and what their attempts tell of them.

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/id.h"
#include "common/status.h"
#include "coordinator/core.h"
#include "coordinator/proto_time.h"
#include "coordinator/reasons.h"

namespace ft {
namespace {

absl::Status NoSuchJob(const std::string& job_id) {
  return ReasonError(absl::StatusCode::kNotFound, v1::REASON_NOT_FOUND,
                     absl::StrCat("no job ", job_id));
}

}  // namespace

void Core::On(const SubmitCommand& submit) {
  if (AnswerAgain(submit.request)) return;
  absl::Status refusal = CheckModel(submit.spec);
  if (refusal.ok()) refusal = CheckExportName(submit.spec);
  if (!refusal.ok()) {
    AnswerError(refusal);
    return;
  }
  if (submit.validate_only) {
    v1::Job checked;
    *checked.mutable_spec() = submit.spec;
    Emit(Reply{.ticket = ticket_, .response = checked.SerializeAsString()});
    return;
  }

  std::string job_id;
  do {
    job_id = MakeJobId(now_, job_counter_++);
  } while (live_.contains(job_id) || ended_.contains(job_id));

  LiveJob& live = live_[job_id];
  live.job.set_job_id(job_id);
  *live.job.mutable_spec() = submit.spec;
  v1::Export& exported = *live.job.mutable_spec()->mutable_export_();
  if (exported.name().empty()) exported.set_name(job_id);
  live.job.set_submit_seq(++last_submit_seq_);
  live.job.set_etag(1);
  v1::JobStatus& status = *live.job.mutable_status();
  *status.mutable_created() = ToProto(now_);
  AddEvent(live, v1::EVENT_KIND_JOB_CREATED, /*epoch=*/0,
           absl::StrCat("job ", submit.spec.name(), " is queued"));
  FT_CHECK(Move(live, JobEvent::kSubmit).ok());

  // Flush counts the etag up; the answer says what the store will say.
  v1::Job answer = live.job;
  answer.set_etag(live.job.etag() + 1);
  Answer(submit.request, answer.SerializeAsString());
}

absl::Status Core::CheckModel(const v1::JobSpec& spec) const {
  std::set<std::string> known;
  bool any_worker = false;
  for (const auto& [worker_id, worker] : fleet_.workers()) {
    if (worker.session == 0) continue;
    any_worker = true;
    for (const v1::ModelInfo& model : worker.models) known.insert(model.name());
  }
  if (!any_worker || known.contains(spec.model().base())) {
    return absl::OkStatus();
  }
  const std::string names = known.empty() ? "none" : absl::StrJoin(known, ", ");
  return ReasonError(absl::StatusCode::kInvalidArgument,
                     v1::REASON_UNKNOWN_MODEL,
                     absl::StrCat("model.base: no worker holds the model '",
                                  spec.model().base(), "'; known: ", names,
                                  "; import it with ftctl model import"),
                     {{"known", absl::StrJoin(known, ",")}});
}

absl::Status Core::CheckExportName(const v1::JobSpec& spec) const {
  const std::string& name = spec.export_().name();
  if (name.empty()) return absl::OkStatus();
  std::string holder;
  if (artifacts_.contains(name)) holder = "an artifact";
  for (const auto& [job_id, live] : live_) {
    if (live.job.spec().export_().name() == name) {
      holder = absl::StrCat("job ", job_id);
    }
  }
  if (holder.empty()) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kAlreadyExists, v1::REASON_NAME_IN_USE,
                     absl::StrCat("export.name: '", name, "' is used by ",
                                  holder, "; choose another"));
}

void Core::On(const CancelCommand& cancel) {
  if (AnswerAgain(cancel.request)) return;
  const auto ended = ended_.find(cancel.job_id);
  if (ended != ended_.end()) {
    const auto next = NextJobState(ended->second.state, JobEvent::kCancel);
    if (next.ok()) {
      Emit(Reply{.ticket = ticket_, .job_id = cancel.job_id});
    } else {
      AnswerError(next.status());
    }
    return;
  }
  LiveJob* live = FindJob(cancel.job_id);
  if (live == nullptr) {
    AnswerError(NoSuchJob(cancel.job_id));
    return;
  }
  v1::JobStatus& status = *live->job.mutable_status();
  status.clear_reason();  // Of a HELD job.
  if (!live->attempt.has_value()) status.set_message("cancelled");
  if (const absl::Status moved = Move(*live, JobEvent::kCancel); !moved.ok()) {
    AnswerError(moved);
    return;
  }
  if (status.state() == v1::JOB_STATE_CANCELLED) {
    fleet_.Release(cancel.job_id);
  } else if (live->attempt.has_value() && !live->attempt->stopping) {
    StopRest(*live, "the job was cancelled");
  }
  Touch(*live);
  v1::Job answer = live->job;
  answer.set_etag(live->job.etag() + 1);
  Answer(cancel.request, answer.SerializeAsString());
}

void Core::On(const ResumeCommand& resume) {
  if (AnswerAgain(resume.request)) return;
  if (const absl::Status refusal = CheckResume(resume); !refusal.ok()) {
    AnswerError(refusal);
    return;
  }
  if (ended_.erase(resume.job_id) > 0) {
    std::map<std::string, LiveJob> none;
    InstallJob({.job = resume.failed->job,
                .last_event_seq = resume.failed->last_event_seq},
               none);
  }
  LiveJob& live = *FindJob(resume.job_id);
  v1::JobStatus& status = *live.job.mutable_status();
  // Whatever made it fail was looked at: the policy begins anew.
  status.set_attempts_without_progress(0);
  status.set_attempts_before_resume(status.attempts_size());
  status.clear_reason();
  status.clear_message();
  FT_CHECK(Move(live, JobEvent::kResume).ok());
  v1::Job answer = live.job;
  answer.set_etag(live.job.etag() + 1);
  Answer(resume.request, answer.SerializeAsString());
}

absl::Status Core::CheckResume(const ResumeCommand& resume) const {
  if (const auto ended = ended_.find(resume.job_id); ended != ended_.end()) {
    return CheckFailed(ended->second, resume);
  }
  const auto live = live_.find(resume.job_id);
  if (live == live_.end()) return NoSuchJob(resume.job_id);
  return NextJobState(live->second.job.status().state(), JobEvent::kResume)
      .status();
}

// All that the job needs must still be there, for it kept nothing from others.
absl::Status Core::CheckFailed(const EndedJob& ended,
                               const ResumeCommand& resume) const {
  FT_RETURN_IF_ERROR(NextJobState(ended.state, JobEvent::kResume).status());
  // Somebody else may have resumed it since the store was read, and it has
  // failed again.
  if (!resume.failed.has_value() || resume.failed->job.etag() != ended.etag) {
    return ReasonError(absl::StatusCode::kUnavailable, v1::REASON_NOT_READY,
                       "the job has just changed; try again");
  }
  FT_RETURN_IF_ERROR(resume.failed->inputs);
  const v1::Job& job = resume.failed->job;
  FT_RETURN_IF_ERROR(CheckExportName(job.spec()));
  const int64_t step = job.status().checkpoint_step();
  const std::vector<std::string> names = CheckpointsOf(resume.job_id);
  const bool has_newest =
      !names.empty() && artifacts_.at(names.back()).step == step;
  if (step > 0 && !has_newest) {
    return ReasonError(
        absl::StatusCode::kFailedPrecondition, v1::REASON_MISSING_BLOBS,
        absl::StrCat("the job's checkpoint of step ", step,
                     " was deleted or has expired; submit the job again"));
  }
  return absl::OkStatus();
}

void Core::On(const DeleteCommand& erase) {
  if (AnswerAgain(erase.request)) return;
  if (const LiveJob* live = FindJob(erase.job_id); live != nullptr) {
    AnswerError(
        NextJobState(live->job.status().state(), JobEvent::kDelete).status());
    return;
  }
  const auto ended = ended_.find(erase.job_id);
  if (ended == ended_.end()) {
    AnswerError(NoSuchJob(erase.job_id));
    return;
  }
  FT_CHECK(NextJobState(ended->second.state, JobEvent::kDelete).ok());
  std::vector<std::string> doomed;
  for (const auto& [name, artifact] : artifacts_) {
    if (artifact.job_id == erase.job_id && !artifact.pinned) {
      doomed.push_back(name);
    }
  }
  for (const std::string& name : doomed) EraseArtifactNamed(name);
  ended_.erase(ended);
  Write(EraseJob{erase.job_id});
  Emit(JobDeleted{erase.job_id});
  Answer(erase.request, "");
}

void Core::On(const ProgressCommand& report) {
  LiveJob* live = FindJob(report.job_id);
  if (live == nullptr) return;
  if (report.progress.has_value()) {
    live->reported_step =
        std::max(live->reported_step, report.progress->step());
  }
  if (!live->attempt.has_value() || live->attempt->epoch != report.epoch) {
    return;
  }
  v1::JobStatus& status = *live->job.mutable_status();
  if (report.progress.has_value()) {
    const int64_t step = report.progress->step();
    *status.mutable_progress() = *report.progress;
    v1::Attempt& attempt = AttemptOf(*live);
    if (attempt.first_step() == 0) attempt.set_first_step(step);
    attempt.set_last_step(std::max(attempt.last_step(), step));
    BlameWorkers(*live, step);
  }
  if (report.evaluation.has_value()) {
    *status.mutable_evaluation() = *report.evaluation;
  }
  live->has_new_progress = true;
}

void Core::On(const DivergedCommand& diverged) {
  LiveJob* live = FindJob(diverged.job_id);
  if (live == nullptr) return;
  AddEvent(*live, v1::EVENT_KIND_DIVERGED, diverged.epoch, diverged.message,
           {{"step", absl::StrCat(diverged.step)}});
  Touch(*live);
}

// Ends the job, which has no live attempt any more.
void Core::End(LiveJob& live, JobEvent event, absl::string_view reason,
               absl::string_view message) {
  v1::JobStatus& status = *live.job.mutable_status();
  status.set_reason(std::string(reason));
  status.set_message(std::string(message));
  FT_CHECK(Move(live, event).ok());
  fleet_.Release(live.job.job_id());
}

}  // namespace ft
