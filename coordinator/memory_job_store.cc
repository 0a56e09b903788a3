// SPDX-License-Identifier: Apache-2.0

#include "coordinator/memory_job_store.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/job_state.h"
#include "coordinator/reasons.h"

namespace ft {
namespace {

absl::Status NotFound(absl::string_view what) {
  return ReasonError(absl::StatusCode::kNotFound, v1::REASON_NOT_FOUND,
                     absl::StrCat("no ", what));
}

}  // namespace

absl::StatusOr<Snapshot> MemoryJobStore::Load() {
  absl::MutexLock hold(&mutex_);
  Snapshot snapshot{.last_epoch = last_epoch_,
                    .incarnation = ++incarnation_,
                    .cluster_key = std::string(32, 'k')};
  for (const auto& [job_id, job] : jobs_) {
    snapshot.last_submit_seq =
        std::max(snapshot.last_submit_seq, job.submit_seq());
    if (IsTerminal(job.status().state())) {
      snapshot.ended.push_back({job_id, job.status().state(), job.etag()});
    } else {
      snapshot.live.push_back(
          {job, static_cast<int64_t>(events_[job_id].size())});
    }
  }
  for (const auto& [name, row] : artifacts_) snapshot.artifacts.push_back(row);
  for (const auto& [worker_id, marks] : workers_) {
    snapshot.workers.push_back({worker_id, marks});
  }
  for (const auto& [key, seq] : marks_) {
    snapshot.spool_marks.push_back({key.first, key.second, seq});
  }
  return snapshot;
}

absl::Status MemoryJobStore::Commit(std::span<const Decision> batch) {
  absl::MutexLock hold(&mutex_);
  if (failures_left_ > 0) {
    --failures_left_;
    return failure_;
  }
  for (const Decision& decision : batch) {
    for (const Record& record : decision.records) {
      std::visit([this](const auto& what)
                     ABSL_NO_THREAD_SAFETY_ANALYSIS { Write(what); },
                 record);
    }
  }
  return absl::OkStatus();
}

void MemoryJobStore::Write(const PutJob& put) {
  v1::Job& job = jobs_[put.job.job_id()];
  const auto attempts = job.status().attempts();
  job = put.job;
  *job.mutable_status()->mutable_attempts() = attempts;
}

void MemoryJobStore::Write(const EraseJob& erase) {
  jobs_.erase(erase.job_id);
  events_.erase(erase.job_id);
}

void MemoryJobStore::Write(const PutAttempt& put) {
  auto& attempts = *jobs_[put.job_id].mutable_status()->mutable_attempts();
  const auto known =
      std::ranges::find(attempts, put.attempt.epoch(), &v1::Attempt::epoch);
  const auto is_live = [](const v1::Attempt& attempt) {
    return attempt.state() != v1::ATTEMPT_STATE_ENDED;
  };
  if (known != attempts.end()) {
    *known = put.attempt;
  } else {
    // The index one_live_attempt of the real store.
    FT_CHECK(std::ranges::none_of(attempts, is_live));
    *attempts.Add() = put.attempt;
  }
}

void MemoryJobStore::Write(const AppendEvent& append) {
  std::vector<v1::Event>& events = events_[append.event.job_id()];
  FT_CHECK(append.event.job_seq() == static_cast<int64_t>(events.size()) + 1);
  events.push_back(append.event);
}

void MemoryJobStore::Write(const PutReply& put) {
  const RequestKey& key = put.reply.key;
  FT_CHECK(
      replies_.emplace(std::pair(key.principal, key.request_id), put).second);
}

void MemoryJobStore::Write(const PutLastEpoch& put) {
  FT_CHECK(put.epoch > last_epoch_);
  last_epoch_ = put.epoch;
}

void MemoryJobStore::Write(const PutSpoolMark& put) {
  marks_[{put.epoch, put.worker_id}] = put.seq;
}

void MemoryJobStore::Write(const PutArtifact& put) {
  artifacts_[put.row.artifact.name()] = put.row;
}

void MemoryJobStore::Write(const EraseArtifact& erase) {
  artifacts_.erase(erase.name);
}

void MemoryJobStore::Write(const PutWorker& put) {
  workers_[put.worker_id] = put.marks;
}

void MemoryJobStore::Write(const AppendAudit& append) {
  audit_.push_back(append);
}

std::vector<AppendAudit> MemoryJobStore::Audit() {
  absl::MutexLock hold(&mutex_);
  return audit_;
}

absl::Status MemoryJobStore::PruneReplies(absl::Time before) {
  absl::MutexLock hold(&mutex_);
  std::erase_if(replies_,
                [&](const auto& entry) { return entry.second.at < before; });
  return absl::OkStatus();
}

absl::StatusOr<v1::Job> MemoryJobStore::GetJob(absl::string_view job_id) {
  absl::MutexLock hold(&mutex_);
  const auto entry = jobs_.find(std::string(job_id));
  if (entry == jobs_.end()) return NotFound(absl::StrCat("job ", job_id));
  return entry->second;
}

absl::StatusOr<std::vector<v1::Job>> MemoryJobStore::ListJobs(
    const JobQuery& query) {
  absl::MutexLock hold(&mutex_);
  std::vector<v1::Job> jobs;
  for (const auto& [job_id, job] : jobs_) {
    if (query.before_submit_seq > 0 &&
        job.submit_seq() >= query.before_submit_seq) {
      continue;
    }
    if (!query.states.empty() &&
        !std::ranges::count(query.states, job.status().state())) {
      continue;
    }
    if (!query.name.empty() && job.spec().name() != query.name) continue;
    jobs.push_back(job);
  }
  std::ranges::sort(jobs, std::greater<>(), &v1::Job::submit_seq);
  if (std::cmp_greater(jobs.size(), query.page_size)) {
    jobs.resize(query.page_size);
  }
  return jobs;
}

absl::StatusOr<std::vector<v1::Event>> MemoryJobStore::ListEvents(
    absl::string_view job_id, int64_t after_seq, int limit) {
  absl::MutexLock hold(&mutex_);
  std::vector<v1::Event> found;
  for (const v1::Event& event : events_[std::string(job_id)]) {
    if (event.job_seq() > after_seq && std::cmp_less(found.size(), limit)) {
      found.push_back(event);
    }
  }
  return found;
}

absl::StatusOr<int64_t> MemoryJobStore::LastEventSeq(absl::string_view job_id) {
  absl::MutexLock hold(&mutex_);
  return static_cast<int64_t>(events_[std::string(job_id)].size());
}

absl::StatusOr<std::optional<StoredReply>> MemoryJobStore::FindReply(
    absl::string_view principal, absl::string_view request_id) {
  absl::MutexLock hold(&mutex_);
  const auto entry =
      replies_.find({std::string(principal), std::string(request_id)});
  if (entry == replies_.end()) return std::optional<StoredReply>();
  return std::optional<StoredReply>(entry->second.reply);
}

absl::StatusOr<v1::Artifact> MemoryJobStore::GetArtifact(
    absl::string_view name) {
  absl::MutexLock hold(&mutex_);
  const auto entry = artifacts_.find(std::string(name));
  if (entry == artifacts_.end())
    return NotFound(absl::StrCat("artifact ", name));
  return entry->second.artifact;
}

absl::StatusOr<v1::Artifact> MemoryJobStore::GetArtifactByManifest(
    absl::string_view manifest_sha256) {
  absl::MutexLock hold(&mutex_);
  for (const auto& [name, row] : artifacts_) {
    if (row.artifact.manifest_sha256() == manifest_sha256) return row.artifact;
  }
  return NotFound(absl::StrCat("artifact with manifest ", manifest_sha256));
}

absl::StatusOr<std::vector<v1::Artifact>> MemoryJobStore::ListArtifacts(
    absl::string_view job_id, absl::string_view after_name, int limit) {
  absl::MutexLock hold(&mutex_);
  std::vector<v1::Artifact> found;
  for (const auto& [name, row] : artifacts_) {
    if (name <= after_name || std::cmp_greater_equal(found.size(), limit)) {
      continue;
    }
    if (job_id.empty() || row.artifact.manifest().job_id() == job_id) {
      found.push_back(row.artifact);
    }
  }
  return found;
}

absl::StatusOr<std::set<std::string>> MemoryJobStore::ReferencedBlobs() {
  absl::MutexLock hold(&mutex_);
  std::set<std::string> blobs;
  for (const auto& [name, row] : artifacts_) {
    blobs.insert(row.artifact.manifest_sha256());
    for (const v1::FileEntry& file : row.artifact.manifest().files()) {
      blobs.insert(file.sha256());
    }
  }
  for (const auto& [job_id, job] : jobs_) {
    for (const v1::Dataset& dataset : job.spec().data().train()) {
      blobs.insert(dataset.sha256());
    }
    blobs.insert(job.spec().data().validation().sha256());
  }
  return blobs;
}

void MemoryJobStore::FailCommits(int count, absl::Status error) {
  absl::MutexLock hold(&mutex_);
  failures_left_ = count;
  failure_ = std::move(error);
}

}  // namespace ft
