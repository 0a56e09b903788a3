// SPDX-License-Identifier: Apache-2.0

#include "train/run.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/failpoint.h"
#include "common/file.h"
#include "common/no_space.h"
#include "common/status.h"
#include "train/adapter_export.h"
#include "train/assemble.h"
#include "train/checkpoint.h"
#include "train/determinism.h"
#include "train/model_export.h"
#include "train/snapshot.h"
#include "train/torch_guard.h"

namespace ft {
namespace {

constexpr absl::Duration kBeginTimeout = absl::Minutes(30);
// Between tries of a checkpoint while the disk is full.
constexpr std::chrono::seconds kSpacePause{1};
// Of what the rank must not end without: how often, and between.
constexpr int kMostTries = 10;
constexpr std::chrono::milliseconds kInsistPause{500};

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
  absl::Status OpenSnapshots();
  std::vector<std::optional<CheckpointInfo>> UsableSnapshots();
  absl::Status CheckSource(const CheckpointInfo& saved,
                           const std::string& where) const;
  void Resumed(const CheckpointInfo& saved, absl::string_view source);
  absl::Status Loop();
  double TakeSnapshot(const StepReport& report);
  absl::Status Evaluate();
  // `is_last`: the rank ends after it, so it must succeed.
  absl::Status Checkpoint(bool is_last);
  absl::StatusOr<v1::CheckpointFiles> TryCheckpoint(const CheckpointInfo& info);
  template <typename Files>
  void NoteSpace(const absl::StatusOr<Files>& files);
  template <typename Write>
  auto Insist(Write write);
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
  CheckpointInfo InfoNow() const;
  void Warn(const std::string& message);

  const RankJob& job_;
  Link& link_;
  RunOutcome& outcome_;
  std::unique_ptr<Assembly> assembly_;
  std::string layout_sha256_;
  std::unique_ptr<Snapshotter> snapshots_;  // Null: none are taken.
  std::chrono::steady_clock::time_point last_checkpoint_ =
      std::chrono::steady_clock::now();
  bool has_no_space_ = false;
};

absl::Status RankRun::Run(bool resume_own) {
  FT_ASSIGN_OR_RETURN(assembly_, Assemble(job_, link_));
  layout_sha256_ = assembly_->optimizer().partition().Digest();
  Pass(Failpoint::kRankAssembled);
  FT_RETURN_IF_ERROR(Resume(resume_own));
  outcome_.last_step = trainer().completed_steps();

  v1::RankReadyNotice notice;
  notice.set_model_digest(assembly_->model_digest);
  notice.set_completed_steps(trainer().completed_steps());
  notice.set_total_steps(assembly_->total_steps);
  notice.set_optimizer_state_bytes(assembly_->optimizer().state_bytes());
  link_.Ready(notice);
  Pass(Failpoint::kRankReady);
  FT_RETURN_IF_ERROR(link_.WaitForBegin(kBeginTimeout));
  Pass(Failpoint::kRankBegun);

  FT_RETURN_IF_ERROR(Loop());
  if (outcome_.yielded) return absl::OkStatus();
  return Export();
}

void RankRun::Warn(const std::string& message) {
  v1::Event event;
  event.set_kind(v1::EVENT_KIND_WARNING);
  event.set_message(message);
  link_.Tell(event);
}

absl::Status RankRun::Resume(bool resume_own) {
  FT_RETURN_IF_ERROR(OpenSnapshots());
  if (trainer().completed_steps() > 0) return absl::OkStatus();
  if (!job_.source_checkpoint_dir.empty()) {
    return ResumeFrom(job_.source_checkpoint_dir);
  }
  if (!resume_own) return absl::OkStatus();
  for (const std::string& dir : ListCheckpoints(CheckpointDir())) {
    const absl::Status status = ResumeFrom(dir);
    // A rotten generation is told, and the one before it is used.
    if (!absl::IsDataLoss(status)) return status;
    Warn(absl::StrCat("checkpoint not used: ", status.message()));
  }
  return absl::OkStatus();
}

// What the ring says of each of the steps we were told; nothing: not usable.
std::vector<std::optional<CheckpointInfo>> RankRun::UsableSnapshots() {
  std::vector<std::optional<CheckpointInfo>> usable;
  for (const int64_t step : job_.source_snapshot_steps) {
    usable.emplace_back();
    if (snapshots_ == nullptr) continue;
    absl::StatusOr<CheckpointInfo> saved = snapshots_->Read(step);
    absl::Status status = saved.status();
    if (status.ok()) {
      status = CheckSource(*saved, absl::StrCat("snapshot of step ", step));
    }
    if (status.ok()) {
      usable.back() = *std::move(saved);
    } else {
      Warn(absl::StrCat("snapshot not used: ", status.message()));
    }
  }
  return usable;
}

// Opens this rank's ring and, where the gang agrees on a step that all hold,
// goes on from there. Ranks differ in nothing: where one has no room, none
// takes snapshots.
absl::Status RankRun::OpenSnapshots() {
  std::vector<double> mine = {0};
  if (!job_.snapshot_ring.empty()) {
    auto opened = Snapshotter::Open(job_, assembly_->optimizer(), link_);
    if (opened.ok()) {
      snapshots_ = *std::move(opened);
      mine[0] = 1;
    } else {
      Warn(std::string(opened.status().message()));
    }
  }
  const auto usable = UsableSnapshots();
  for (const auto& saved : usable) mine.push_back(saved.has_value() ? 1 : 0);
  // Sums of 1 are exact: equal to the number of ranks where all agree.
  FT_RETURN_IF_ERROR(assembly_->ranks->AllReduce(mine),
                     "agreeing on a snapshot");
  if (mine[0] != job_.world) snapshots_.reset();
  if (usable.empty()) {
    if (snapshots_ != nullptr) snapshots_->Clear();
    return absl::OkStatus();
  }
  for (size_t i = 0; i < usable.size(); ++i) {
    if (snapshots_ == nullptr || mine[i + 1] != job_.world) continue;
    FT_RETURN_IF_ERROR(
        snapshots_->Restore(usable[i]->step, assembly_->optimizer()),
        "snapshot of step ", usable[i]->step);
    Resumed(*usable[i], "snapshot");
    return absl::OkStatus();
  }
  return absl::DataLossError(
      "no local snapshot is whole at all ranks; the next attempt begins at the "
      "last checkpoint");
}

absl::Status RankRun::CheckSource(const CheckpointInfo& saved,
                                  const std::string& where) const {
  if (job_.spec.determinism().strict()) {
    FT_RETURN_IF_ERROR(CheckFingerprint(saved.fingerprint), where);
  }
  if (saved.lanes != job_.lanes() ||
      saved.dataset_digest != assembly_->train_data.digest ||
      saved.model_digest != assembly_->model_digest ||
      saved.seed != job_.spec.determinism().seed()) {
    return absl::FailedPreconditionError(absl::StrCat(
        where,
        ": made with other data, another model, seed or number of lanes; "
        "it cannot be continued by this job"));
  }
  return absl::OkStatus();
}

void RankRun::Resumed(const CheckpointInfo& saved, absl::string_view source) {
  trainer().Resume(saved.step, saved.cursor);
  Pass(Failpoint::kRankResumed);
  if (!is_first()) return;
  v1::Event event;
  event.set_kind(v1::EVENT_KIND_RESUMED);
  event.set_message(
      absl::StrCat("goes on after step ", saved.step, " from a ", source));
  (*event.mutable_fields())["step"] = absl::StrCat(saved.step);
  (*event.mutable_fields())["source"] = std::string(source);
  link_.Tell(event);
}

absl::Status RankRun::ResumeFrom(const std::string& dir) {
  FT_ASSIGN_OR_RETURN(const CheckpointInfo saved, ReadCheckpointInfo(dir));
  FT_RETURN_IF_ERROR(CheckSource(saved, dir));
  FT_RETURN_IF_ERROR(LoadCheckpoint(dir, assembly_->optimizer()).status());
  Resumed(saved, "checkpoint");
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
  if (is_first() && has_no_space_) {
    requests.checkpoint |=
        std::chrono::steady_clock::now() - last_checkpoint_ > kSpacePause;
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
    FT_ASSIGN_OR_RETURN(
        const StepReport report,
        trainer().Step(OwnRequests(),
                       snapshots_ == nullptr ? 0 : snapshots_->sealed_step()));
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
    const double snapshot_seconds = TakeSnapshot(report);
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
      metrics.set_snapshot_seconds(snapshot_seconds);
      metrics.set_seconds(std::chrono::duration<double>(
                              std::chrono::steady_clock::now() - begin)
                              .count());
      link_.Step(metrics);
      Pass(Failpoint::kStepTold);
    }
    if (WantsEvaluation()) FT_RETURN_IF_ERROR(Evaluate(), "evaluation");
    if (WantsCheckpoint(report.requests)) {
      FT_RETURN_IF_ERROR(Checkpoint(report.requests.yield),
                         "checkpoint of step ", report.step);
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
    Pass(Failpoint::kEvaluated);
  }
  return absl::OkStatus();
}

CheckpointInfo RankRun::InfoNow() const {
  return {.job_id = job_.job_id,
          .step = trainer().completed_steps(),
          .ranks = job_.world,
          .zero_stage = job_.spec.parallelism().zero_stage(),
          .lanes = job_.lanes(),
          .seed = job_.spec.determinism().seed(),
          .cursor = trainer().cursor(),
          .model_digest = assembly_->model_digest,
          .dataset_digest = assembly_->train_data.digest,
          .layout_sha256 = layout_sha256_,
          .fingerprint = Fingerprint()};
}

// Returns the seconds it took. Every rank decides alike.
double RankRun::TakeSnapshot(const StepReport& report) {
  const int64_t every =
      std::max(1, job_.spec.checkpointing().snapshot_every_steps());
  if (snapshots_ == nullptr || report.step % every != 0 ||
      report.sealed_step != snapshots_->taken_step()) {
    return 0;
  }
  const auto begin = std::chrono::steady_clock::now();
  snapshots_->Take(InfoNow(), assembly_->optimizer());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
      .count();
}

// Tells when there was no room for `files`, and when there is again.
template <typename Files>
void RankRun::NoteSpace(const absl::StatusOr<Files>& files) {
  if (!files.ok() && !IsNoSpace(files.status())) return;
  const bool had_no_space = std::exchange(has_no_space_, !files.ok());
  if (files.ok() && !had_no_space) return;
  v1::Event event;
  event.set_kind(v1::EVENT_KIND_CONDITION);
  event.set_message(files.ok() ? "there is space again"
                               : std::string(files.status().message()));
  (*event.mutable_fields())["type"] = "NO_SPACE";
  (*event.mutable_fields())["is_on"] = has_no_space_ ? "true" : "false";
  link_.Tell(event);
}

// Where the disk is full, the daemon has been told and may make room.
template <typename Write>
auto RankRun::Insist(Write write) {
  auto files = write();
  for (int tries = 1; IsNoSpace(files.status()) && tries < kMostTries;
       ++tries) {
    std::this_thread::sleep_for(kInsistPause);
    files = write();
  }
  return files;
}

// A full disk takes nothing of the checkpoints before. All ranks learn of it
// alike.
absl::StatusOr<v1::CheckpointFiles> RankRun::TryCheckpoint(
    const CheckpointInfo& info) {
  absl::StatusOr<v1::CheckpointFiles> files = WriteCheckpoint(
      CheckpointDir(), info, assembly_->optimizer(), *assembly_->ranks);
  last_checkpoint_ = std::chrono::steady_clock::now();
  if (IsNoSpace(files.status())) {
    // First, for it gives back room.
    FT_RETURN_IF_ERROR(
        RemoveTree(JoinPath(CheckpointDir(), CheckpointName(info.step))));
  }
  NoteSpace(files);
  return files;
}

absl::Status RankRun::Checkpoint(bool is_last) {
  const CheckpointInfo info = InfoNow();
  const auto write = [&] { return TryCheckpoint(info); };
  const absl::StatusOr<v1::CheckpointFiles> files =
      is_last ? Insist(write) : write();
  // The next try comes soon.
  if (IsNoSpace(files.status()) && !is_last) return absl::OkStatus();
  if (!files.ok()) return files.status();
  link_.Checkpointed(*files);
  Pass(Failpoint::kCheckpointTold);
  // Two generations stay here at least: the newest may still be uploading.
  FT_RETURN_IF_ERROR(RemoveOldCheckpoints(
      CheckpointDir(), info.step,
      std::max<int64_t>(2, job_.spec.checkpointing().keep().last())));
  Pass(Failpoint::kOldCheckpointsRemoved);
  return absl::OkStatus();
}

absl::Status RankRun::Export() {
  const std::string dir = JoinPath(job_.workspace, "export");
  const bool is_adapter = job_.spec.adaptation().has_lora();
  const auto write = [&] {
    auto made = is_adapter ? ExportAdapter(*assembly_->model, job_.spec, dir)
                           : ExportModel(*assembly_->sharded, *assembly_->ranks,
                                         job_.model_dir, dir);
    if (is_first()) NoteSpace(made);
    return made;
  };
  // Adapters are whole on every rank; a model may lie on all of them.
  v1::ExportFiles files;
  if (is_first() || !is_adapter) {
    FT_ASSIGN_OR_RETURN(files, Insist(write), "export");
  }
  if (is_first()) {
    files.set_step(trainer().completed_steps());
    Pass(Failpoint::kExportWritten);
    link_.Exported(files);
    Pass(Failpoint::kExportTold);
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
