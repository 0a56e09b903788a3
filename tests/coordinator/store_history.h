// SPDX-License-Identifier: Apache-2.0
//
// A coordinator without its threads and listeners: the real core, store and
// blobs go through what a job makes of them, and what is told is noted.

#pragma once

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "artifact/manifest.h"
#include "common/digest.h"
#include "common/status.h"
#include "common/token.h"
#include "coordinator/blob_files.h"
#include "coordinator/sqlite_job_store.h"
#include "tests/coordinator/core_world.h"
#include "tests/testing/fault_env.h"

namespace ft::testing {

// Of the running history; what a daemon does on a failed fsync.
inline FaultEnv* dying = nullptr;
inline void DieOfSync(const absl::Status&) { dying->Die(); }

// One coordinator without its threads and listeners, over `dir`.
class History {
 public:
  History(std::string dir, FaultEnv& env) : dir_(std::move(dir)), env_(env) {
    dying = &env;
    SetSyncFailureHandler(DieOfSync);
  }
  ~History() { SetSyncFailureHandler(nullptr); }

  // Everything that a coordinator stores, with a restart in the middle. Stops
  // where the process dies.
  void Run() {
    Start();
    const std::string first = Submit("r-1");
    Attach({});
    Begin(first);
    for (int64_t step = 1; step <= 3; ++step) Checkpoint(first, step);
    Sweep();
    Stop();
    Start();
    Attach(first);
    Checkpoint(first, 4);
    const std::string second = Submit("r-2");
    Cancel(second);
    Erase(second);
    Finish(first);
    Stop();
  }
  bool is_dead() const { return is_dead_; }
  // Whether a process said anything after a fsync of its had failed.
  bool told_too_much() const { return told_too_much_; }

 private:
  void Start() {
    if (is_dead_) return;
    const auto start = [&]() -> absl::Status {
      FT_RETURN_IF_ERROR(MakeDirs(dir_, 0700));
      FT_ASSIGN_OR_RETURN(store_, SqliteJobStore::Open(dir_ + "/state"));
      FT_RETURN_IF_ERROR(
          ReadOrMakeTokenFile(dir_ + "/tokens/admin.token").status());
      FT_ASSIGN_OR_RETURN(blobs_,
                          BlobFiles::Open(dir_ + "/blobs", dir_ + "/uploads"));
      FT_ASSIGN_OR_RETURN(Snapshot snapshot, store_->Load());
      core_ = std::make_unique<Core>(Timers(), std::move(snapshot), now_);
      return absl::OkStatus();
    };
    if (!start().ok()) Die();
  }
  void Stop() {
    core_.reset();
    blobs_.reset();
    store_.reset();
    // The end of a process; the next one reads what is there.
    failed_before_ = env_.has_failed();
  }
  void Die() {
    is_dead_ = true;
    env_.Die();
    Stop();
  }

  void Apply(Command command) {
    if (is_dead_) return;
    now_ += absl::Milliseconds(1);
    const Decision decision = core_->Apply(command, now_);
    if (!decision.records.empty() &&
        !store_->Commit(std::span(&decision, 1)).ok()) {
      Die();
      return;
    }
    for (const Effect& effect : decision.effects) Tell(effect);
    if (core_->wants_schedule()) Apply({.what = ScheduleCommand{}});
  }
  void Tell(const Effect& effect) {
    if (const auto* changed = std::get_if<JobChanged>(&effect)) {
      job_ = *changed->job;
      Mark(absl::StrCat("job ", job_.job_id(), " ", job_.etag()));
    } else if (const auto* deleted = std::get_if<JobDeleted>(&effect)) {
      Mark(absl::StrCat("gone ", deleted->job_id));
    } else if (const auto* order = std::get_if<ToWorker>(&effect);
               order != nullptr && order->message.has_start_attempt()) {
      epoch_ = order->message.start_attempt().epoch();
      Mark(absl::StrCat("epoch ", epoch_));
    }
  }

  void Mark(const std::string& what) {
    is_dead_ |= env_.is_dead();  // Ended by a failed fsync.
    if (is_dead_) return;
    told_too_much_ |= env_.has_failed() && !failed_before_;
    env_.Mark(what);
  }

  std::string Submit(const std::string& request_id) {
    SubmitCommand submit;
    submit.spec = CoreWorld::Spec();
    submit.spec.mutable_data()->add_train()->set_sha256(PutBlob("rows"));
    submit.request = CoreWorld::MakeRequest(Method::kCreateJob, request_id,
                                            "body of " + request_id);
    Apply({.ticket = 1, .what = std::move(submit)});
    return job_.job_id();
  }
  void Cancel(const std::string& job_id) {
    CancelCommand cancel;
    cancel.job_id = job_id;
    cancel.request = CoreWorld::MakeRequest(Method::kCancelJob, "c-1", job_id);
    Apply({.ticket = 1, .what = std::move(cancel)});
  }
  void Erase(const std::string& job_id) {
    env_.Mark(absl::StrCat("deleting ", job_id));
    DeleteCommand erase;
    erase.job_id = job_id;
    erase.request = CoreWorld::MakeRequest(Method::kDeleteJob, "d-1", job_id);
    Apply({.ticket = 1, .what = std::move(erase)});
  }
  void Attach(const std::string& held_job) {
    WorkerCommand command{.session = ++session_, .message = {}};
    v1::Attach& attach = *command.message.mutable_attach();
    attach.set_worker_id("w-1");
    attach.set_instance_id("i-1");
    attach.mutable_inventory()->add_slots();
    attach.add_models()->set_name("tiny");
    attach.mutable_models(0)->set_digest("d1");
    if (!held_job.empty()) {
      *attach.add_attempts() =
          CoreWorld::Held(held_job, epoch_, v1::ATTEMPT_STATE_RUNNING);
    }
    Apply({.what = std::move(command)});
  }
  template <typename Fill>
  void Say(const std::string& job_id, Fill fill) {
    WorkerCommand command{.session = session_, .message = {}};
    v1::AttemptUpdate& update = *command.message.mutable_attempt_update();
    update.set_job_id(job_id);
    update.set_epoch(epoch_);
    fill(update);
    Apply({.what = std::move(command)});
  }
  void Begin(const std::string& job_id) {
    Say(job_id, [](auto& update) { update.mutable_accepted(); });
    Say(job_id, [](auto& update) { update.mutable_rank_ready(); });
  }

  // What a client does with a blob: again, if the disk said no.
  std::string PutBlob(const std::string& bytes) {
    const std::string sha256 = Sha256Hex(bytes);
    for (int tries = 0; tries < 3 && !is_dead_; ++tries) {
      v1::BeginUploadRequest begin;
      begin.set_sha256(sha256);
      begin.set_bytes(static_cast<int64_t>(bytes.size()));
      const auto begun = blobs_->Begin(begin);
      if (!begun.ok()) continue;
      absl::Status status;
      for (int64_t at = begun->offset();
           status.ok() && at < static_cast<int64_t>(bytes.size()); at += 1000) {
        v1::WriteRequest write;
        write.set_upload_id(begun->upload_id());
        write.set_offset(at);
        write.set_data(bytes.substr(at, 1000));
        write.set_crc32c(Crc32c(write.data()));
        status = blobs_->Write(write).status();
      }
      if (status.ok()) status = blobs_->Finish(begun->upload_id()).status();
      if (status.ok()) {
        Mark("blob " + sha256);
        break;
      }
    }
    return sha256;
  }
  void Commit(const std::string& job_id, v1::ArtifactKind kind, int64_t step,
              const std::string& name) {
    if (is_dead_) return;
    CommitArtifactCommand commit;
    commit.manifest.set_kind(kind);
    commit.manifest.set_job_id(job_id);
    commit.manifest.set_epoch(epoch_);
    commit.manifest.set_step(step);
    v1::FileEntry& file = *commit.manifest.add_files();
    file.set_path("weights");
    file.set_bytes(2500);
    file.set_sha256(PutBlob(std::string(2500, static_cast<char>('a' + step))));
    commit.commit.set_job_id(job_id);
    commit.commit.set_epoch(epoch_);
    commit.commit.set_name(name);
    commit.commit.set_manifest_sha256(
        PutBlob(SerializeManifest(commit.manifest)));
    commit.request = CoreWorld::MakeRequest(Method::kCommitArtifact,
                                            absl::StrCat("a-", step, name), "");
    if (is_dead_) return;
    // As JobBook does: no row names what is not stored.
    if (!blobs_->Has(file.sha256()) ||
        !blobs_->Has(commit.commit.manifest_sha256())) {
      return;
    }
    const std::string manifest = commit.commit.manifest_sha256();
    Apply({.ticket = 1, .what = std::move(commit)});
    if (!is_dead_) Mark("committed " + manifest);
  }
  void Checkpoint(const std::string& job_id, int64_t step) {
    Commit(job_id, v1::ARTIFACT_KIND_CHECKPOINT, step, "");
  }
  void Finish(const std::string& job_id) {
    Say(job_id,
        [](auto& update) { update.mutable_ranks_done()->add_ranks(0); });
    Commit(job_id, v1::ARTIFACT_KIND_ADAPTER, 9, job_id);
  }
  void Sweep() {
    if (is_dead_) return;
    const auto referenced = store_->ReferencedBlobs();
    if (!referenced.ok()) return;
    env_.Mark("sweep");
    const absl::Time future = absl::Now() + absl::Hours(48);
    // What fails stays, and is swept another time.
    blobs_->Sweep(*referenced, future, future).IgnoreError();
  }

  const std::string dir_;
  FaultEnv& env_;
  std::unique_ptr<SqliteJobStore> store_;
  std::unique_ptr<BlobFiles> blobs_;
  std::unique_ptr<Core> core_;
  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
  bool is_dead_ = false;
  bool told_too_much_ = false;
  bool failed_before_ = false;
  uint64_t session_ = 0;
  uint64_t epoch_ = 0;
  v1::Job job_;  // That was told last.
};

}  // namespace ft::testing
