// SPDX-License-Identifier: Apache-2.0

#include "train/run.h"

#include <sys/resource.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "common/status.h"
#include "train/adapter_export.h"
#include "train/assemble.h"
#include "train/checkpoint.h"
#include "train/determinism.h"
#include "train/torch_guard.h"

namespace ft {
namespace {

constexpr absl::Duration kBeginTimeout = absl::Minutes(30);

int64_t PeakResidentBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

void Stamp(google::protobuf::Timestamp& stamp) {
  const absl::Time now = absl::Now();
  stamp.set_seconds(absl::ToUnixSeconds(now));
  stamp.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(
      now - absl::FromUnixSeconds(absl::ToUnixSeconds(now)))));
}

class RankRun {
 public:
  RankRun(const RankJob& job, Link& link, RunOutcome& outcome)
      : job_(job), link_(link), outcome_(outcome) {}

  absl::Status Run(bool resume_own);

 private:
  absl::Status Resume(bool resume_own);
  absl::Status ResumeFrom(const std::string& dir);
  absl::Status Loop();
  absl::Status Evaluate();
  absl::Status Checkpoint();
  absl::Status Export();

  bool is_first() const { return job_.rank == 0; }
  bool ends_pass() const { return trainer().cursor().index == 0; }
  Trainer& trainer() const { return *assembly_->trainer; }
  std::string CheckpointDir() const {
    return JoinPath(job_.workspace, "checkpoints");
  }
  v1::StepMetrics MetricsAt(int64_t step) const;
  bool WantsEvaluation() const;
  bool WantsCheckpoint(const RankRequests& requests) const;
  RankRequests OwnRequests();

  const RankJob& job_;
  Link& link_;
  RunOutcome& outcome_;
  std::unique_ptr<Assembly> assembly_;
  std::chrono::steady_clock::time_point last_checkpoint_ =
      std::chrono::steady_clock::now();
};

absl::Status RankRun::Run(bool resume_own) {
  FT_ASSIGN_OR_RETURN(assembly_, Assemble(job_, link_));
  FT_RETURN_IF_ERROR(Resume(resume_own));
  outcome_.last_step = trainer().completed_steps();

  v1::RankReadyNotice notice;
  notice.set_model_digest(assembly_->model_digest);
  notice.set_completed_steps(trainer().completed_steps());
  notice.set_total_steps(assembly_->total_steps);
  notice.set_optimizer_state_bytes(assembly_->optimizer->state_bytes());
  link_.Ready(notice);
  FT_RETURN_IF_ERROR(link_.WaitForBegin(kBeginTimeout));

  FT_RETURN_IF_ERROR(Loop());
  if (outcome_.yielded) return absl::OkStatus();
  return Export();
}

absl::Status RankRun::Resume(bool resume_own) {
  if (!job_.source_checkpoint_dir.empty()) {
    return ResumeFrom(job_.source_checkpoint_dir);
  }
  if (!resume_own) return absl::OkStatus();
  for (const std::string& dir : ListCheckpoints(CheckpointDir())) {
    const absl::Status status = ResumeFrom(dir);
    // A rotten generation is told, and the one before it is used.
    if (!absl::IsDataLoss(status)) return status;
    v1::Event event;
    event.set_kind(v1::EVENT_KIND_WARNING);
    event.set_message(absl::StrCat("checkpoint not used: ", status.message()));
    link_.Tell(event);
  }
  return absl::OkStatus();
}

absl::Status RankRun::ResumeFrom(const std::string& dir) {
  FT_ASSIGN_OR_RETURN(const CheckpointInfo saved, ReadCheckpointInfo(dir));
  if (job_.spec.determinism().strict()) {
    FT_RETURN_IF_ERROR(CheckFingerprint(saved.fingerprint), dir);
  }
  if (saved.lanes != job_.lanes() ||
      saved.dataset_digest != assembly_->train_data.digest ||
      saved.model_digest != assembly_->model_digest ||
      saved.seed != job_.spec.determinism().seed()) {
    return absl::FailedPreconditionError(absl::StrCat(
        dir,
        ": made with other data, another model, seed or number of lanes; "
        "it cannot be continued by this job"));
  }
  FT_RETURN_IF_ERROR(LoadCheckpoint(dir, *assembly_->optimizer).status());
  trainer().Resume(saved.step, saved.cursor);
  if (is_first()) {
    v1::Event event;
    event.set_kind(v1::EVENT_KIND_RESUMED);
    event.set_message(absl::StrCat("goes on after step ", saved.step));
    (*event.mutable_fields())["step"] = absl::StrCat(saved.step);
    link_.Tell(event);
  }
  return absl::OkStatus();
}

RankRequests RankRun::OwnRequests() {
  RankRequests requests = link_.TakeRequests();
  const v1::Every& every = job_.spec.checkpointing().every();
  // Rank 0's watch decides for all.
  if (is_first() && every.has_minutes()) {
    const std::chrono::duration<double> since =
        std::chrono::steady_clock::now() - last_checkpoint_;
    requests.checkpoint |= since.count() > 60 * every.minutes();
  }
  return requests;
}

bool RankRun::WantsCheckpoint(const RankRequests& requests) const {
  const v1::Every& every = job_.spec.checkpointing().every();
  return requests.checkpoint || requests.yield ||
         (every.has_steps() &&
          trainer().completed_steps() % every.steps() == 0);
}

bool RankRun::WantsEvaluation() const {
  if (assembly_->validation_loader == nullptr) return false;
  const v1::Every& every = job_.spec.evaluation().every();
  if (every.has_steps()) {
    return trainer().completed_steps() % every.steps() == 0;
  }
  return ends_pass() && trainer().cursor().pass % every.epochs() == 0;
}

v1::StepMetrics RankRun::MetricsAt(int64_t step) const {
  v1::StepMetrics metrics;
  metrics.set_step(step);
  metrics.set_total_steps(assembly_->total_steps);
  metrics.set_attempt_epoch(job_.epoch);
  metrics.set_peak_rss_bytes(PeakResidentBytes());
  const Cursor& cursor = trainer().cursor();
  metrics.set_epoch(
      static_cast<double>(cursor.pass) +
      static_cast<double>(cursor.index) /
          static_cast<double>(assembly_->train_data.train.size()));
  Stamp(*metrics.mutable_at());
  return metrics;
}

absl::Status RankRun::Loop() {
  while (trainer().completed_steps() < assembly_->total_steps) {
    const auto begin = std::chrono::steady_clock::now();
    FT_ASSIGN_OR_RETURN(const StepReport report, trainer().Step(OwnRequests()));
    if (report.requests.stop) return absl::CancelledError("told to stop");
    if (report.verdict == StepVerdict::kNonFinite) {
      outcome_.non_finite = true;
      return absl::FailedPreconditionError(absl::StrCat(
          "step ", report.step, ": the loss is ", report.loss,
          " and the gradient norm ", report.grad_norm,
          "; no parameter has changed; lower schedule.learning_rate or look at "
          "the data of this step"));
    }
    outcome_.last_step = report.step;
    if (is_first()) {
      v1::StepMetrics metrics = MetricsAt(report.step);
      metrics.set_loss(report.loss);
      metrics.set_grad_norm(report.grad_norm);
      metrics.set_learning_rate(report.learning_rate);
      metrics.set_tokens(report.tokens);
      metrics.set_targets(report.targets);
      metrics.set_data_seconds(report.data_seconds);
      metrics.set_forward_backward_seconds(report.forward_backward_seconds);
      metrics.set_reduce_seconds(report.reduce_seconds);
      metrics.set_update_seconds(report.update_seconds);
      metrics.set_seconds(std::chrono::duration<double>(
                              std::chrono::steady_clock::now() - begin)
                              .count());
      link_.Step(metrics);
    }
    if (WantsEvaluation()) FT_RETURN_IF_ERROR(Evaluate(), "evaluation");
    if (WantsCheckpoint(report.requests)) {
      FT_RETURN_IF_ERROR(Checkpoint(), "checkpoint of step ", report.step);
    }
    if (report.requests.yield) {
      outcome_.yielded = true;
      return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

absl::Status RankRun::Evaluate() {
  FT_ASSIGN_OR_RETURN(const double loss,
                      trainer().Evaluate(*assembly_->validation_loader));
  if (is_first()) {
    v1::StepMetrics metrics = MetricsAt(trainer().completed_steps());
    metrics.set_eval_loss(loss);
    link_.Step(metrics);
  }
  return absl::OkStatus();
}

absl::Status RankRun::Checkpoint() {
  const CheckpointInfo info{
      .job_id = job_.job_id,
      .step = trainer().completed_steps(),
      .ranks = job_.world,
      .zero_stage = job_.spec.parallelism().zero_stage(),
      .lanes = job_.lanes(),
      .seed = job_.spec.determinism().seed(),
      .cursor = trainer().cursor(),
      .model_digest = assembly_->model_digest,
      .dataset_digest = assembly_->train_data.digest,
      .layout_sha256 = assembly_->optimizer->partition().Digest(),
      .fingerprint = Fingerprint()};
  FT_ASSIGN_OR_RETURN(
      const v1::CheckpointFiles files,
      WriteCheckpoint(CheckpointDir(), info, *assembly_->optimizer,
                      *assembly_->ranks));
  link_.Checkpointed(files);
  last_checkpoint_ = std::chrono::steady_clock::now();
  // Two generations stay here at least: the newest may still be uploading.
  return RemoveOldCheckpoints(
      CheckpointDir(), info.step,
      std::max<int64_t>(2, job_.spec.checkpointing().keep().last()));
}

absl::Status RankRun::Export() {
  if (is_first()) {
    FT_ASSIGN_OR_RETURN(v1::ExportFiles files,
                        ExportAdapter(*assembly_->model, job_.spec,
                                      JoinPath(job_.workspace, "export")),
                        "export");
    files.set_step(trainer().completed_steps());
    link_.Exported(files);
  }
  // Nobody leaves before the result is on disk.
  return assembly_->ranks->Barrier();
}

}  // namespace

v1::RankExit RunOutcome::ToExit() const {
  v1::RankExit exit;
  exit.set_code(static_cast<int32_t>(status.code()));
  exit.set_message(std::string(status.message()));
  exit.set_yielded(yielded);
  exit.set_non_finite(non_finite);
  exit.set_out_of_memory(IsOutOfMemory(status));
  exit.set_last_step(last_step);
  return exit;
}

RunOutcome RunRank(const RankJob& job, Link& link, bool resume_own) {
  RunOutcome outcome;
  BindDeterminism(job.spec.determinism());
  outcome.status =
      GuardTorch([&] { return RankRun(job, link, outcome).Run(resume_own); });
  return outcome;
}

}  // namespace ft
