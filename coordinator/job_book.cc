// SPDX-License-Identifier: Apache-2.0

#include "coordinator/job_book.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "artifact/manifest.h"
#include "common/digest.h"
#include "common/failpoint.h"
#include "common/id.h"
#include "common/log.h"
#include "common/status.h"
#include "coordinator/reasons.h"
#include "coordinator/request_checks.h"

namespace ft {
namespace {

constexpr size_t kMaxMissingNamed = 10;

absl::Status InvalidRequest(absl::string_view message) {
  return ReasonError(absl::StatusCode::kInvalidArgument,
                     v1::REASON_INVALID_REQUEST, message);
}

// Page size within its limits. A negative one is refused.
absl::StatusOr<int> PageSize(int32_t wanted, int unset, int most) {
  if (wanted < 0) {
    return InvalidRequest(absl::StrCat("page_size: ", wanted, " is negative"));
  }
  return wanted == 0 ? unset : std::min(static_cast<int>(wanted), most);
}

absl::StatusOr<int64_t> ParsePageToken(const std::string& token) {
  int64_t value = 0;
  if (token.empty()) return value;
  if (!absl::SimpleAtoi(token, &value) || value <= 0) {
    return InvalidRequest(
        absl::StrCat("page_token: '", token, "' was not made by this server"));
  }
  return value;
}

// The request's bytes without its id, the same for equal requests.
template <typename Message>
std::string BodyOf(Message message) {
  message.clear_request_id();
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream sink(&bytes);
    google::protobuf::io::CodedOutputStream out(&sink);
    out.SetSerializationDeterministic(true);  // Maps have no order.
    message.SerializeToCodedStream(&out);
  }
  return bytes;
}

// Gives the message that the reply holds.
template <typename Message>
void Answer(const Reply& reply, const JobBook::Done<Message>& done) {
  Message message;
  if (!reply.status.ok()) {
    done(reply.status);
  } else if (!message.ParseFromString(reply.response)) {
    done(absl::InternalError("a stored reply does not parse"));
  } else {
    done(std::move(message));
  }
}

}  // namespace

// Posts `what` and gives its reply to `on_reply`.
template <typename Call>
void JobBook::Post(Call what, std::function<void(const Reply&)> on_reply) {
  const uint64_t ticket = parts_.router.Expect(std::move(on_reply));
  parts_.committer.Post({.ticket = ticket, .what = std::move(what)});
}

// Posts a mutation with what the store knows of its request_id.
template <typename Call>
void JobBook::Mutate(const Principal& who, Method method,
                     std::string request_id, std::string body, Call call,
                     std::function<void(const Reply&)> on_reply) {
  if (!IsRequestId(request_id)) {
    on_reply(Reply{
        .status = InvalidRequest("request_id: must be 1 to 64 characters of "
                                 "[A-Za-z0-9_-]")});
    return;
  }
  Sha256 digest;
  digest.Update(body);
  call.request.key = RequestKey{.principal = who.name,
                                .request_id = request_id,
                                .method = method,
                                .body_sha256 = digest.Finish()};
  auto stored = parts_.store.FindReply(who.name, request_id);
  if (!stored.ok()) {
    on_reply(Reply{.status = stored.status()});
    return;
  }
  call.request.stored = *std::move(stored);
  Post(std::move(call), std::move(on_reply));
}

void JobBook::ShowViews(v1::Job& job) const {
  parts_.router.Explain(job);
  const EventBus::News news = parts_.bus.Newest(job.job_id());
  if (news.progress.has_value()) {
    *job.mutable_status()->mutable_progress() = *news.progress;
  }
  if (news.evaluation.has_value()) {
    *job.mutable_status()->mutable_evaluation() = *news.evaluation;
  }
}

// --- Jobs --------------------------------------------------------------------

void JobBook::CreateJob(const Principal& who, v1::CreateJobRequest request,
                        Done<v1::Job> done) {
  parts_.pool.Run(
      [this, who, request = std::move(request), done = std::move(done)] {
        SubmitCommand submit;
        submit.spec = request.spec();
        submit.validate_only = request.validate_only();
        absl::Status status = CheckRepeated(request);
        if (status.ok()) status = parts_.checker.CheckAndFix(submit.spec);
        if (status.ok()) status = CheckDatasets(submit.spec);
        if (!status.ok()) {
          done(status);
          return;
        }
        const auto answer = [this, done](const Reply& reply) {
          AnswerJob(reply, done);
        };
        if (request.validate_only()) {
          Post(std::move(submit), answer);
          return;
        }
        Mutate(who, Method::kCreateJob, request.request_id(), BodyOf(request),
               std::move(submit), answer);
      });
}

// Every file of the data must be stored under its digest.
absl::Status JobBook::CheckDatasets(const v1::JobSpec& spec) {
  std::vector<FieldError> wrong;
  const auto check = [&](const std::string& field, const std::string& path,
                         const std::string& sha256) {
    if (!IsSha256Hex(sha256)) {
      wrong.push_back({absl::StrCat(field, ".sha256"),
                       absl::StrCat("'", path,
                                    "' has no digest; submit with "
                                    "ftctl, which uploads the file")});
    } else if (!parts_.blobs.Has(sha256)) {
      wrong.push_back({absl::StrCat(field, ".sha256"),
                       absl::StrCat("'", path, "' (", sha256.substr(0, 12),
                                    "...) is not stored; upload it first")});
    }
  };
  for (int i = 0; i < spec.data().train_size(); ++i) {
    const v1::Dataset& dataset = spec.data().train(i);
    check(absl::StrCat("data.train[", i, "]"), dataset.path(),
          dataset.sha256());
  }
  const v1::Validation& validation = spec.data().validation();
  if (validation.has_path()) {
    check("data.validation", validation.path(), validation.sha256());
  }
  if (wrong.empty()) return absl::OkStatus();
  return BadRequestError(
      "INVALID_SPEC", absl::StrCat(wrong[0].field, ": ", wrong[0].description),
      wrong);
}

void JobBook::AnswerJob(const Reply& reply, const Done<v1::Job>& done) {
  if (!reply.status.ok()) {
    done(reply.status);
    return;
  }
  if (!reply.job_id.empty()) {  // As it is in the store.
    v1::GetJobRequest get;
    get.set_job_id(reply.job_id);
    GetJob(std::move(get), done);
    return;
  }
  Answer(reply, done);
}

void JobBook::GetJob(v1::GetJobRequest request, Done<v1::Job> done) {
  parts_.pool.Run([this, request = std::move(request), done = std::move(done)] {
    absl::StatusOr<v1::Job> job = parts_.store.GetJob(request.job_id());
    if (job.ok()) ShowViews(*job);
    done(std::move(job));
  });
}

void JobBook::ListJobs(v1::ListJobsRequest request,
                       Done<v1::ListJobsResponse> done) {
  parts_.pool.Run([this, request = std::move(request), done = std::move(done)] {
    done([&]() -> absl::StatusOr<v1::ListJobsResponse> {
      FT_RETURN_IF_ERROR(CheckRepeated(request));
      JobQuery query{.name = request.name()};
      FT_ASSIGN_OR_RETURN(query.page_size,
                          PageSize(request.page_size(), 50, 1000));
      FT_ASSIGN_OR_RETURN(query.before_submit_seq,
                          ParsePageToken(request.page_token()));
      for (const int state : request.states()) {
        query.states.push_back(static_cast<v1::JobState>(state));
      }
      FT_ASSIGN_OR_RETURN(const std::vector<v1::Job> jobs,
                          parts_.store.ListJobs(query));
      v1::ListJobsResponse response;
      for (const v1::Job& job : jobs) {
        v1::Job& listed = *response.add_jobs();
        listed = job;
        ShowViews(listed);
        for (v1::Attempt& attempt :
             *listed.mutable_status()->mutable_attempts()) {
          attempt.clear_exit_report();  // A page has room for 1,000 jobs.
        }
      }
      if (std::cmp_equal(jobs.size(), query.page_size)) {
        response.set_next_page_token(absl::StrCat(jobs.back().submit_seq()));
      }
      return response;
    }());
  });
}

void JobBook::CancelJob(const Principal& who, v1::CancelJobRequest request,
                        Done<v1::Job> done) {
  parts_.pool.Run(
      [this, who, request = std::move(request), done = std::move(done)] {
        CancelCommand cancel;
        cancel.job_id = request.job_id();
        Mutate(who, Method::kCancelJob, request.request_id(), BodyOf(request),
               std::move(cancel),
               [this, done](const Reply& reply) { AnswerJob(reply, done); });
      });
}

void JobBook::ResumeJob(const Principal& who, v1::ResumeJobRequest request,
                        Done<v1::Job> done) {
  parts_.pool.Run(
      [this, who, request = std::move(request), done = std::move(done)] {
        ResumeCommand resume;
        resume.job_id = request.job_id();
        if (const absl::Status read = ReadFailed(resume); !read.ok()) {
          done(read);
          return;
        }
        Mutate(who, Method::kResumeJob, request.request_id(), BodyOf(request),
               std::move(resume),
               [this, done](const Reply& reply) { AnswerJob(reply, done); });
      });
}

// The job, if it is FAILED; whatever else it is the core knows by itself.
absl::Status JobBook::ReadFailed(ResumeCommand& resume) {
  absl::StatusOr<v1::Job> job = parts_.store.GetJob(resume.job_id);
  if (absl::IsNotFound(job.status())) return absl::OkStatus();
  if (!job.ok()) return job.status();
  if (job->status().state() != v1::JOB_STATE_FAILED) return absl::OkStatus();
  ResumeCommand::Failed failed;
  failed.job = *std::move(job);
  FT_ASSIGN_OR_RETURN(failed.last_event_seq,
                      parts_.store.LastEventSeq(resume.job_id));
  failed.inputs = CheckInputs(failed.job);
  resume.failed = std::move(failed);
  return absl::OkStatus();
}

// Whether every blob is there that the job would go on from.
absl::Status JobBook::CheckInputs(const v1::Job& job) {
  absl::Status inputs = CheckDatasets(job.spec());
  const std::string& checkpoint = job.status().checkpoint_manifest_sha256();
  if (inputs.ok() && !checkpoint.empty()) {
    inputs = ReadManifest(checkpoint).status();
  }
  if (inputs.ok()) return inputs;
  return ReasonError(
      absl::StatusCode::kFailedPrecondition, v1::REASON_MISSING_BLOBS,
      absl::StrCat("what the job needs is gone: ", inputs.message(),
                   "; submit it again"));
}

void JobBook::DeleteJob(const Principal& who, v1::DeleteJobRequest request,
                        DoneEmpty done) {
  parts_.pool.Run(
      [this, who, request = std::move(request), done = std::move(done)] {
        DeleteCommand erase;
        erase.job_id = request.job_id();
        Mutate(who, Method::kDeleteJob, request.request_id(), BodyOf(request),
               std::move(erase),
               [done](const Reply& reply) { done(reply.status); });
      });
}

void JobBook::ListEvents(v1::ListEventsRequest request,
                         Done<v1::ListEventsResponse> done) {
  parts_.pool.Run([this, request = std::move(request), done = std::move(done)] {
    done([&]() -> absl::StatusOr<v1::ListEventsResponse> {
      FT_ASSIGN_OR_RETURN(const int size,
                          PageSize(request.page_size(), 100, 1000));
      FT_ASSIGN_OR_RETURN(const int64_t after,
                          ParsePageToken(request.page_token()));
      FT_RETURN_IF_ERROR(parts_.store.GetJob(request.job_id()).status());
      FT_ASSIGN_OR_RETURN(
          const std::vector<v1::Event> events,
          parts_.store.ListEvents(request.job_id(), after, size));
      v1::ListEventsResponse response;
      response.mutable_events()->Add(events.begin(), events.end());
      if (std::cmp_equal(events.size(), size)) {
        response.set_next_page_token(absl::StrCat(events.back().job_seq()));
      }
      return response;
    }());
  });
}

void JobBook::ListMetrics(v1::ListMetricsRequest request,
                          Done<v1::ListMetricsResponse> done) {
  parts_.pool.Run([this, request = std::move(request), done = std::move(done)] {
    done([&]() -> absl::StatusOr<v1::ListMetricsResponse> {
      FT_ASSIGN_OR_RETURN(const int size,
                          PageSize(request.page_size(), 1000, 10000));
      FT_RETURN_IF_ERROR(parts_.store.GetJob(request.job_id()).status());
      FT_ASSIGN_OR_RETURN(
          const std::vector<v1::StepMetrics> points,
          parts_.records.Metrics(request.job_id(), request.after_step(), size));
      v1::ListMetricsResponse response;
      response.mutable_points()->Add(points.begin(), points.end());
      response.set_more(std::cmp_greater_equal(points.size(), size));
      return response;
    }());
  });
}

std::unique_ptr<JobWatch> JobBook::WatchJob(const v1::WatchJobRequest& request,
                                            std::function<void()> wake) {
  return std::make_unique<JobWatch>(parts_.store, parts_.bus, request,
                                    std::move(wake));
}

std::unique_ptr<LogTail> JobBook::TailLogs(const v1::TailLogsRequest& request,
                                           std::function<void()> wake) {
  return std::make_unique<LogTail>(parts_.store, parts_.bus, parts_.records,
                                   request, absl::Now(), std::move(wake));
}

// --- Artifacts ---------------------------------------------------------------

void JobBook::CommitArtifact(const Principal& who,
                             v1::CommitArtifactRequest request,
                             Done<v1::Artifact> done) {
  parts_.pool.Run(
      [this, who, request = std::move(request), done = std::move(done)] {
        if (who.role == Role::kWorker && request.job_id().empty()) {
          done(InvalidRequest("job_id: a worker commits for its attempt"));
          return;
        }
        if (!request.name().empty() && !IsArtifactName(request.name())) {
          done(InvalidRequest(absl::StrCat(
              "name: '", request.name().substr(0, 80),
              "' is no name of an artifact; use a-z, 0-9, '.', '_' and '-', at "
              "most 128 characters, the first a letter or digit")));
          return;
        }
        absl::StatusOr<v1::Manifest> manifest =
            ReadManifest(request.manifest_sha256());
        if (!manifest.ok()) {
          done(manifest.status());
          return;
        }
        Pass(manifest->kind() == v1::ARTIFACT_KIND_CHECKPOINT
                 ? Failpoint::kManifestOfCheckpoint
                 : Failpoint::kManifestOfAdapter);
        CommitArtifactCommand commit;
        commit.commit = request;
        commit.manifest = *std::move(manifest);
        Mutate(who, Method::kCommitArtifact, request.request_id(),
               BodyOf(request), std::move(commit),
               [done](const Reply& reply) { Answer(reply, done); });
      });
}

// The manifest, if it is well formed and all its blobs are stored.
absl::StatusOr<v1::Manifest> JobBook::ReadManifest(const std::string& sha256) {
  if (!IsSha256Hex(sha256)) {
    return InvalidRequest("manifest_sha256: no SHA-256");
  }
  absl::StatusOr<std::string> bytes =
      parts_.blobs.ReadSmall(sha256, kMaxManifestBytes);
  if (absl::IsNotFound(bytes.status())) {
    return ReasonError(absl::StatusCode::kFailedPrecondition,
                       v1::REASON_MISSING_BLOBS,
                       absl::StrCat("manifest ", sha256, " is not stored"),
                       {{"missing", sha256}});
  }
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<v1::Manifest> manifest = ParseManifest(*bytes);
  if (!manifest.ok()) return InvalidRequest(manifest.status().message());
  std::vector<std::string> missing;
  for (const v1::FileEntry& file : manifest->files()) {
    if (!parts_.blobs.Has(file.sha256()) && missing.size() < kMaxMissingNamed) {
      missing.push_back(absl::StrCat(file.path(), " (", file.sha256(), ")"));
    }
  }
  if (missing.empty()) return manifest;
  std::string names;
  for (const std::string& name : missing) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  }
  return ReasonError(absl::StatusCode::kFailedPrecondition,
                     v1::REASON_MISSING_BLOBS,
                     absl::StrCat("blobs are missing: ", names));
}

void JobBook::GetArtifact(v1::GetArtifactRequest request,
                          Done<v1::Artifact> done) {
  parts_.pool.Run([this, request = std::move(request), done = std::move(done)] {
    if (request.has_manifest_sha256()) {
      done(parts_.store.GetArtifactByManifest(request.manifest_sha256()));
    } else {
      done(parts_.store.GetArtifact(request.name()));
    }
  });
}

void JobBook::ListArtifacts(v1::ListArtifactsRequest request,
                            Done<v1::ListArtifactsResponse> done) {
  parts_.pool.Run([this, request = std::move(request), done = std::move(done)] {
    done([&]() -> absl::StatusOr<v1::ListArtifactsResponse> {
      FT_ASSIGN_OR_RETURN(const int size,
                          PageSize(request.page_size(), 50, 1000));
      FT_ASSIGN_OR_RETURN(const std::vector<v1::Artifact> artifacts,
                          parts_.store.ListArtifacts(
                              request.job_id(), request.page_token(), size));
      v1::ListArtifactsResponse response;
      response.mutable_artifacts()->Add(artifacts.begin(), artifacts.end());
      if (std::cmp_equal(artifacts.size(), size)) {
        response.set_next_page_token(artifacts.back().name());
      }
      return response;
    }());
  });
}

void JobBook::DeleteArtifact(const Principal& who,
                             v1::DeleteArtifactRequest request,
                             DoneEmpty done) {
  parts_.pool.Run(
      [this, who, request = std::move(request), done = std::move(done)] {
        DeleteArtifactCommand erase;
        erase.name = request.name();
        Mutate(who, Method::kDeleteArtifact, request.request_id(),
               BodyOf(request), std::move(erase),
               [done](const Reply& reply) { done(reply.status); });
      });
}

// --- Workers -----------------------------------------------------------------

v1::ListWorkersResponse JobBook::ListWorkers() const {
  v1::ListWorkersResponse response;
  for (v1::WorkerInfo& worker : parts_.router.Workers()) {
    *response.add_workers() = std::move(worker);
  }
  return response;
}

void JobBook::ReleaseWorker(const Principal& who,
                            v1::ReleaseWorkerRequest request,
                            Done<v1::WorkerInfo> done) {
  parts_.pool.Run(
      [this, who, request = std::move(request), done = std::move(done)] {
        ReleaseWorkerCommand release;
        release.worker_id = request.worker_id();
        Mutate(who, Method::kReleaseWorker, request.request_id(),
               BodyOf(request), std::move(release),
               [done](const Reply& reply) { Answer(reply, done); });
      });
}

v1::ListModelsResponse JobBook::ListModels() const {
  std::map<std::pair<std::string, std::string>, v1::HeldModel> held;
  for (const v1::WorkerInfo& worker : parts_.router.Workers()) {
    if (worker.state() == v1::WORKER_STATE_LOST) continue;
    for (const v1::ModelInfo& model : worker.models()) {
      v1::HeldModel& entry = held[{model.name(), model.digest()}];
      *entry.mutable_model() = model;
      entry.add_worker_ids(worker.worker_id());
    }
  }
  v1::ListModelsResponse response;
  for (auto& [key, model] : held) *response.add_models() = std::move(model);
  return response;
}

uint64_t JobBook::OpenSession(std::shared_ptr<WorkerLink> link) {
  return parts_.router.AddLink(std::move(link));
}

void JobBook::Receive(uint64_t session, v1::ConnectRequest message) {
  parts_.committer.Post({.what = WorkerCommand{session, std::move(message)}});
}

void JobBook::CloseSession(uint64_t session) {
  parts_.router.RemoveLink(session);
  parts_.committer.Post({.what = DetachCommand{session}});
}

void JobBook::Report(v1::ReportRequest report, Done<v1::ReportResponse> done) {
  parts_.pool.Run([this, report = std::move(report), done = std::move(done)] {
    if (const absl::Status status = CheckRepeated(report); !status.ok()) {
      done(status);
      return;
    }
    v1::ReportResponse response;
    response.set_epoch(report.epoch());
    response.set_seq(report.seq());
    // What belongs to no job is of no use to anybody; it is acknowledged so
    // that the worker forgets it.
    if (!parts_.store.GetJob(report.job_id()).ok()) {
      done(std::move(response));
      return;
    }
    absl::StatusOr<RunRecords::Stored> stored = parts_.records.Append(report);
    if (!stored.ok()) {
      done(stored.status());
      return;
    }
    Pass(Failpoint::kReportStored);
    for (const RunRecords::Diverged& diverged : stored->diverged) {
      parts_.committer.Post(
          {.what = DivergedCommand{.job_id = report.job_id(),
                                   .epoch = report.epoch(),
                                   .step = diverged.step,
                                   .message = diverged.message}});
    }
    if (stored->progress.has_value() || stored->evaluation.has_value()) {
      if (parts_.router.EpochOf(report.job_id()) == report.epoch()) {
        ShowProgress(report.job_id(), *stored);
      }
      parts_.committer.Post(
          {.what = ProgressCommand{.job_id = report.job_id(),
                                   .epoch = report.epoch(),
                                   .progress = stored->progress,
                                   .evaluation = stored->evaluation}});
    }
    if (!report.logs().empty()) parts_.bus.OnLogs(report.job_id());
    done(std::move(response));
  });
}

void JobBook::ShowProgress(const std::string& job_id,
                           const RunRecords::Stored& stored) {
  if (stored.progress.has_value()) {
    parts_.metrics.Step(job_id, *stored.progress);
  }
  if (stored.evaluation.has_value()) {
    parts_.metrics.Step(job_id, *stored.evaluation);
  }
  parts_.bus.OnProgress(job_id, stored.progress, stored.evaluation);
}

absl::Status JobBook::CheckEpoch(const std::string& job_id,
                                 uint64_t epoch) const {
  if (epoch != 0 && parts_.router.EpochOf(job_id) == epoch) {
    return absl::OkStatus();
  }
  return ReasonError(
      absl::StatusCode::kAborted, v1::REASON_STALE_EPOCH,
      absl::StrCat("epoch ", epoch, " no longer acts for job ", job_id));
}

}  // namespace ft
