// SPDX-License-Identifier: Apache-2.0
//
// Artifacts: what a manifest means to a job, and which of them stay.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/digest.h"
#include "coordinator/core.h"
#include "coordinator/proto_time.h"
#include "coordinator/reasons.h"

namespace ft {
namespace {

constexpr int kDefaultKeepLast = 2;

absl::Status NameInUse(const std::string& name) {
  return ReasonError(absl::StatusCode::kAlreadyExists, v1::REASON_NAME_IN_USE,
                     absl::StrCat("artifact '", name,
                                  "' exists with other content; delete it or "
                                  "choose another name"));
}

absl::Status WrongState(const v1::Job& job, absl::string_view what) {
  return ReasonError(absl::StatusCode::kFailedPrecondition,
                     v1::REASON_WRONG_STATE,
                     absl::StrCat("job ", job.job_id(), " is ",
                                  ShortName(job.status().state()), "; ", what));
}

}  // namespace

std::string DigestOfFiles(const v1::Manifest& manifest) {
  Sha256 digest;
  for (const v1::FileEntry& file : manifest.files()) {
    digest.Update(absl::StrCat(file.path().size(), ":", file.path(), " ",
                               file.bytes(), " ", file.sha256(), "\n"));
  }
  return digest.FinishHex();
}

void Core::On(const CommitArtifactCommand& commit) {
  if (AnswerAgain(commit.request)) return;
  const std::string& job_id = commit.commit.job_id();
  if (job_id.empty()) {
    CommitOfClient(commit);
    return;
  }
  const uint64_t epoch = commit.commit.epoch();
  if (const absl::Status lease = leases_.Check(job_id, epoch); !lease.ok()) {
    Count(Observation::Kind::kFenced, "commit_artifact");
    AnswerError(lease);
    return;
  }
  if (commit.manifest.job_id() != job_id || commit.manifest.epoch() != epoch) {
    AnswerError(ReasonError(
        absl::StatusCode::kInvalidArgument, v1::REASON_INVALID_REQUEST,
        absl::StrCat("the manifest is of job ", commit.manifest.job_id(),
                     ", epoch ", commit.manifest.epoch())));
    return;
  }
  LiveJob* live = FindJob(job_id);
  FT_CHECK(live != nullptr);  // It has a lease.
  switch (commit.manifest.kind()) {
    case v1::ARTIFACT_KIND_CHECKPOINT:
      CommitCheckpoint(commit, *live);
      return;
    case v1::ARTIFACT_KIND_ADAPTER:
    case v1::ARTIFACT_KIND_MODEL:
      CommitExport(commit, *live);
      return;
    default:
      AnswerError(ReasonError(
          absl::StatusCode::kInvalidArgument, v1::REASON_INVALID_REQUEST,
          absl::StrCat("attempts commit checkpoints, adapters and models, not ",
                       v1::ArtifactKind_Name(commit.manifest.kind()))));
  }
}

void Core::CommitCheckpoint(const CommitArtifactCommand& commit,
                            LiveJob& live) {
  v1::JobStatus& status = *live.job.mutable_status();
  if (status.state() == v1::JOB_STATE_STARTING) {
    AnswerError(WrongState(live.job, "it has taken no step"));
    return;
  }
  const int64_t step = commit.manifest.step();
  const std::string name =
      absl::StrFormat("%s-step-%06d", live.job.job_id(), step);
  const auto before = artifacts_.find(name);
  if (before != artifacts_.end() &&
      before->second.files_sha256 != DigestOfFiles(commit.manifest)) {
    const std::string message =
        absl::StrCat("step ", step, " has other bytes than before");
    AddEvent(live, v1::EVENT_KIND_DIVERGED, commit.commit.epoch(), message,
             {{"step", absl::StrCat(step)},
              {"manifest_before", before->second.manifest_sha256},
              {"manifest", commit.commit.manifest_sha256()}});
    AnswerError(ReasonError(absl::StatusCode::kAlreadyExists,
                            v1::REASON_DIVERGED, message));
    return;
  }

  absl::Time expires = absl::InfiniteFuture();
  const v1::Keep& keep = live.job.spec().checkpointing().keep();
  if (keep.has_ttl()) {
    expires = now_ + absl::Seconds(keep.ttl().seconds());
  }
  const v1::Artifact artifact = Store(commit, name, expires);
  if (step >= status.checkpoint_step()) {  // It never goes back.
    status.set_checkpoint_step(step);
    status.set_checkpoint_manifest_sha256(commit.commit.manifest_sha256());
  }
  AddEvent(live, v1::EVENT_KIND_CHECKPOINT_COMMITTED, commit.commit.epoch(),
           absl::StrCat("checkpoint of step ", step, " is durable"),
           {{"step", absl::StrCat(step)},
            {"artifact", name},
            {"manifest", commit.commit.manifest_sha256()},
            {"bytes", absl::StrCat(artifact.bytes())}});
  KeepNewestCheckpoints(live);
  TouchAttempt(live);
  Answer(commit.request, artifact.SerializeAsString());
}

void Core::CommitExport(const CommitArtifactCommand& commit, LiveJob& live) {
  v1::JobStatus& status = *live.job.mutable_status();
  if (status.state() != v1::JOB_STATE_FINALIZING) {
    AnswerError(WrongState(live.job, "only a FINALIZING job publishes"));
    return;
  }
  const std::string& name = live.job.spec().export_().name();
  const auto before = artifacts_.find(name);
  if (commit.commit.name() != name ||
      (before != artifacts_.end() &&
       before->second.manifest_sha256 != commit.commit.manifest_sha256())) {
    AnswerError(
        commit.commit.name() != name
            ? ReasonError(absl::StatusCode::kInvalidArgument,
                          v1::REASON_INVALID_REQUEST,
                          absl::StrCat("the job publishes '", name, "', not '",
                                       commit.commit.name(), "'"))
            : NameInUse(name));
    return;
  }

  const v1::Artifact artifact = Store(commit, name, absl::InfiniteFuture());
  status.set_artifact_name(name);
  status.set_artifact_manifest_sha256(commit.commit.manifest_sha256());
  AddEvent(live, v1::EVENT_KIND_ARTIFACT_PUBLISHED, commit.commit.epoch(),
           absl::StrCat("published as ", name),
           {{"artifact", name},
            {"manifest", commit.commit.manifest_sha256()},
            {"bytes", absl::StrCat(artifact.bytes())}});
  const std::vector<Member> members_before = live.attempt->members;
  for (Member& member : live.attempt->members) {
    if (member.phase == Member::Phase::kEnded) continue;
    v1::AttemptEnded end;
    end.set_cause(v1::ATTEMPT_CAUSE_COMPLETED);
    MemberEnded(live, member, std::move(end));
  }
  for (Member& member : live.attempt->members) {
    // A gang that has published has completed, whoever died after his part.
    member.end->set_cause(v1::ATTEMPT_CAUSE_COMPLETED);
    member.end->clear_message();
  }
  RecordEnd(live);
  // Not committed, the publisher tries again; nobody has ended.
  recent_ends_[commit.commit.epoch()].members = members_before;
  status.set_attempts_without_progress(0);
  FT_CHECK(Move(live, JobEvent::kPublished).ok());
  fleet_.Release(live.job.job_id());
  Answer(commit.request, artifact.SerializeAsString());
}

void Core::CommitOfClient(const CommitArtifactCommand& commit) {
  const v1::ArtifactKind kind = commit.manifest.kind();
  if (kind == v1::ARTIFACT_KIND_UNSPECIFIED ||
      kind == v1::ARTIFACT_KIND_CHECKPOINT) {
    AnswerError(ReasonError(absl::StatusCode::kInvalidArgument,
                            v1::REASON_INVALID_REQUEST,
                            "manifest.kind: clients commit data sets, models "
                            "and adapters"));
    return;
  }
  std::string name = commit.commit.name();
  if (name.empty()) {
    name =
        absl::StrCat("dataset-", commit.commit.manifest_sha256().substr(0, 16));
  }
  const auto before = artifacts_.find(name);
  if (before != artifacts_.end() &&
      before->second.manifest_sha256 != commit.commit.manifest_sha256()) {
    AnswerError(NameInUse(name));
    return;
  }
  const v1::Artifact artifact = Store(commit, name, absl::InfiniteFuture());
  Answer(commit.request, artifact.SerializeAsString());
}

// Writes the row; the same name and content again changes nothing but a pin.
v1::Artifact Core::Store(const CommitArtifactCommand& commit, std::string name,
                         absl::Time expires) {
  const auto before = artifacts_.find(name);
  const bool is_new = before == artifacts_.end();
  v1::Artifact artifact;
  artifact.set_name(name);
  artifact.set_kind(commit.manifest.kind());
  artifact.set_manifest_sha256(commit.commit.manifest_sha256());
  *artifact.mutable_manifest() = commit.manifest;
  for (const v1::FileEntry& file : commit.manifest.files()) {
    artifact.set_bytes(artifact.bytes() + file.bytes());
  }
  artifact.set_pinned(commit.commit.pinned() ||
                      (!is_new && before->second.pinned));
  const absl::Time created = is_new ? now_ : before->second.created;
  *artifact.mutable_created() = ToProto(created);
  if (expires < absl::InfiniteFuture()) {
    *artifact.mutable_expires() = ToProto(expires);
  }
  ArtifactRow row{.artifact = artifact,
                  .files_sha256 = DigestOfFiles(commit.manifest)};
  artifacts_[name] =
      KnownArtifact{.kind = artifact.kind(),
                    .manifest_sha256 = artifact.manifest_sha256(),
                    .files_sha256 = row.files_sha256,
                    .job_id = commit.manifest.job_id(),
                    .step = commit.manifest.step(),
                    .pinned = artifact.pinned(),
                    .created = created,
                    .expires = expires};
  Write(PutArtifact{std::move(row)});
  return artifact;
}

void Core::On(const DeleteArtifactCommand& erase) {
  if (AnswerAgain(erase.request)) return;
  const auto entry = artifacts_.find(erase.name);
  if (entry == artifacts_.end()) {
    AnswerError(ReasonError(absl::StatusCode::kNotFound, v1::REASON_NOT_FOUND,
                            absl::StrCat("no artifact '", erase.name, "'")));
    return;
  }
  if (LiveJob* live = FindJob(entry->second.job_id); live != nullptr) {
    AnswerError(WrongState(live->job, "it needs this artifact"));
    return;
  }
  EraseArtifactNamed(erase.name);
  Answer(erase.request, "");
}

void Core::EraseArtifactNamed(const std::string& name) {
  artifacts_.erase(name);
  Write(EraseArtifact{name});
}

// Oldest step first.
std::vector<std::string> Core::CheckpointsOf(const std::string& job_id) const {
  std::vector<std::pair<int64_t, std::string>> found;
  const std::string prefix = absl::StrCat(job_id, "-step-");
  for (auto entry = artifacts_.lower_bound(prefix);
       entry != artifacts_.end() && entry->first.starts_with(prefix); ++entry) {
    if (entry->second.kind == v1::ARTIFACT_KIND_CHECKPOINT) {
      found.emplace_back(entry->second.step, entry->first);
    }
  }
  std::ranges::sort(found);
  std::vector<std::string> names;
  for (auto& [step, name] : found) names.push_back(std::move(name));
  return names;
}

void Core::KeepNewestCheckpoints(const LiveJob& live) {
  const int32_t wanted = live.job.spec().checkpointing().keep().last();
  const size_t keep = wanted > 0 ? wanted : kDefaultKeepLast;
  const std::vector<std::string> names = CheckpointsOf(live.job.job_id());
  for (size_t i = 0; i + keep < names.size(); ++i) {
    if (!artifacts_.at(names[i]).pinned) EraseArtifactNamed(names[i]);
  }
}

void Core::ExpireArtifacts() {
  std::vector<std::string> doomed;
  for (const auto& [name, artifact] : artifacts_) {
    if (artifact.pinned || artifact.expires > now_) continue;
    const LiveJob* live = FindJob(artifact.job_id);
    // The newest checkpoint of a live job is where it goes on from.
    if (live != nullptr && live->job.status().checkpoint_manifest_sha256() ==
                               artifact.manifest_sha256) {
      continue;
    }
    doomed.push_back(name);
  }
  for (const std::string& name : doomed) EraseArtifactNamed(name);
}

}  // namespace ft
