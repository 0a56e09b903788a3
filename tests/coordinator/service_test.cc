// SPDX-License-Identifier: Apache-2.0
//
// Jobs and workers over the wire, and what a restart keeps.

#include "tests/coordinator/service_world.h"

namespace ft {
namespace {

using testing::HandWorker;
using testing::HasCode;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::kRows;
using testing::ServiceTest;

// --- Jobs --------------------------------------------------------------------

TEST_F(ServiceTest, AnAcknowledgedJobIsThereAfterARestart) {
  const v1::Job job = Create(Spec(), "r-1").value();
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_QUEUED);
  Stop();
  Start();
  EXPECT_EQ(Get(job.job_id()).spec().name(), "hotel-bot");
  EXPECT_EQ(Create(Spec(), "r-1").value().job_id(), job.job_id());
  const auto other = Create(Spec(/*ranks=*/2), "r-1");
  EXPECT_THAT(other, HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(ReasonOf(other.status()), "REQUEST_ID_REUSED");
}

TEST_F(ServiceTest, ABadRequestIdOrSpecIsRefusedAndStoresNothing) {
  EXPECT_THAT(Create(Spec(), ""), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Create(Spec(), "no spaces"),
              HasCode(absl::StatusCode::kInvalidArgument));
  v1::JobSpec spec = Spec();
  spec.mutable_model()->clear_base();
  spec.clear_name();
  const auto refused = Create(spec, "r-1");
  EXPECT_EQ(ReasonOf(refused.status()), "INVALID_SPEC");
  EXPECT_GE(FieldErrorsOf(refused.status()).size(), 2u);
  spec = Spec();
  spec.mutable_model()->set_base("../../etc");
  EXPECT_EQ(ReasonOf(Create(spec, "r-2").status()), "INVALID_SPEC");
  spec = Spec();
  spec.mutable_time_limit()->set_seconds(5);
  EXPECT_THAT(std::string(Create(spec, "r-3").status().message()),
              HasSubstr("time_limit: is not supported yet"));

  v1::ListJobsResponse list;
  ASSERT_TRUE(jobs_->ListJobs(Admin().get(), {}, &list).ok());
  EXPECT_TRUE(list.jobs().empty());
}

TEST_F(ServiceTest, DataThatIsNotStoredIsRefused) {
  v1::JobSpec spec = Spec();
  spec.mutable_data()->mutable_train(0)->set_sha256(Sha256Hex("elsewhere"));
  const auto refused = Create(spec, "r-1");
  EXPECT_THAT(refused, HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("data.train[0].sha256"));
}

TEST_F(ServiceTest, ValidateOnlyStoresNothing) {
  v1::CreateJobRequest request;
  *request.mutable_spec() = Spec();
  request.set_validate_only(true);
  v1::Job job;
  ASSERT_TRUE(jobs_->CreateJob(Admin().get(), request, &job).ok());
  EXPECT_EQ(job.job_id(), "");
  EXPECT_EQ(job.spec().queue(), "default");
  // Every default and auto is fixed.
  EXPECT_EQ(job.spec().determinism().lanes(), 1);
  EXPECT_EQ(job.spec().determinism().threads(), 1);
  EXPECT_GT(job.spec().batch().micro(), 0);
  EXPECT_EQ(job.spec().adaptation().lora().rank(), 16);
  v1::ListJobsResponse list;
  ASSERT_TRUE(jobs_->ListJobs(Admin().get(), {}, &list).ok());
  EXPECT_TRUE(list.jobs().empty());
}

TEST_F(ServiceTest, ListPagesWithATokenOfItsOwn) {
  for (int i = 0; i < 5; ++i) {
    ASSERT_THAT(Create(Spec(), absl::StrCat("r-", i)), IsOk());
  }
  std::set<std::string> seen;
  v1::ListJobsRequest request;
  request.set_page_size(2);
  do {
    v1::ListJobsResponse page;
    ASSERT_TRUE(jobs_->ListJobs(Admin().get(), request, &page).ok());
    for (const v1::Job& job : page.jobs()) seen.insert(job.job_id());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(seen.size(), 5u);

  request.set_page_token("'; DROP TABLE jobs");
  v1::ListJobsResponse page;
  EXPECT_EQ(jobs_->ListJobs(Admin().get(), request, &page).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

// --- Workers -----------------------------------------------------------------

TEST_F(ServiceTest, AJobRunsToSucceededOverTheWire) {
  HandWorker worker(*daemons_, Worker());
  worker.Attach("w-1");
  EXPECT_EQ(
      worker.Next(&v1::ConnectResponse::has_attached).attached().incarnation(),
      1);
  const std::string job_id = Create(Spec(), "r-1").value().job_id();
  v1::WatchJobRequest watch;
  watch.set_job_id(job_id);
  auto watch_context = Admin();
  auto events = jobs_->WatchJob(watch_context.get(), watch);

  const v1::StartAttempt start =
      worker.Next(&v1::ConnectResponse::has_start_attempt).start_attempt();
  const uint64_t epoch = start.epoch();
  worker.Update(job_id, epoch, [](auto& update) { update.mutable_accepted(); });
  worker.Update(job_id, epoch,
                [](auto& update) { update.mutable_rank_ready(); });
  worker.Next(&v1::ConnectResponse::has_open_barrier);

  auto report_context = Worker();
  auto reports = daemons_->Report(report_context.get());
  v1::ReportRequest report;
  report.set_worker_id("w-1");
  report.set_job_id(job_id);
  report.set_epoch(epoch);
  for (int step = 1; step <= 3; ++step) {
    report.set_seq(step);
    report.clear_metrics();
    report.clear_logs();
    report.add_metrics()->set_step(step);
    report.mutable_metrics(0)->set_loss(3.0 / step);
    report.add_logs()->set_text(absl::StrCat("step ", step));
    ASSERT_TRUE(reports->Write(report));
    v1::ReportResponse stored;
    ASSERT_TRUE(reports->Read(&stored));
    EXPECT_EQ(stored.seq(), step);
  }
  reports->WritesDone();
  EXPECT_TRUE(reports->Finish().ok());
  EXPECT_EQ(Get(job_id).status().progress().step(), 3);

  worker.Update(job_id, epoch,
                [](auto& update) { update.mutable_ranks_done(); });
  const v1::Publish publish =
      worker.Next(&v1::ConnectResponse::has_publish).publish();
  EXPECT_EQ(publish.artifact_name(), job_id);

  v1::Manifest manifest;
  manifest.set_kind(v1::ARTIFACT_KIND_ADAPTER);
  manifest.set_job_id(job_id);
  manifest.set_epoch(epoch);
  v1::FileEntry& file = *manifest.add_files();
  file.set_path("adapter_model.safetensors");
  file.set_sha256(StoreBlob("weights"));
  file.set_bytes(7);
  v1::CommitArtifactRequest commit;
  commit.set_name(publish.artifact_name());
  commit.set_manifest_sha256(StoreBlob(manifest.SerializeAsString()));
  commit.set_job_id(job_id);
  commit.set_epoch(epoch);
  commit.set_request_id("commit-1");
  v1::Artifact artifact;
  const grpc::Status committed =
      worker_uploads_->CommitArtifact(Worker().get(), commit, &artifact);
  ASSERT_TRUE(committed.ok()) << committed.error_message();

  std::vector<v1::EventKind> kinds;
  v1::JobState last_state = v1::JOB_STATE_UNSPECIFIED;
  int64_t next_seq = 1;
  v1::WatchJobResponse message;
  while (events->Read(&message)) {
    if (message.has_job()) last_state = message.job().status().state();
    if (!message.has_event()) continue;
    EXPECT_EQ(message.event().job_seq(), next_seq++);
    kinds.push_back(message.event().kind());
  }
  EXPECT_TRUE(events->Finish().ok());
  EXPECT_EQ(last_state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(kinds, ::testing::Contains(v1::EVENT_KIND_ARTIFACT_PUBLISHED));

  v1::ListMetricsRequest points_request;
  points_request.set_job_id(job_id);
  v1::ListMetricsResponse points;
  ASSERT_TRUE(jobs_->ListMetrics(Admin().get(), points_request, &points).ok());
  ASSERT_EQ(points.points_size(), 3);
  EXPECT_EQ(points.points(2).loss(), 1.0);

  v1::TailLogsRequest tail;
  tail.set_job_id(job_id);
  tail.set_tail_lines(2);
  auto tail_context = Admin();
  auto lines = jobs_->TailLogs(tail_context.get(), tail);
  v1::TailLogsResponse batch;
  ASSERT_TRUE(lines->Read(&batch));
  ASSERT_EQ(batch.lines_size(), 2);
  EXPECT_EQ(batch.lines(1).text(), "step 3");
  EXPECT_FALSE(lines->Read(&batch));
}

TEST_F(ServiceTest, ARunningAttemptIsAdoptedAfterARestart) {
  uint64_t epoch = 0;
  std::string job_id;
  {
    HandWorker worker(*daemons_, Worker());
    worker.Attach("w-1");
    job_id = Create(Spec(), "r-1").value().job_id();
    epoch = worker.Next(&v1::ConnectResponse::has_start_attempt)
                .start_attempt()
                .epoch();
    worker.Update(job_id, epoch,
                  [](auto& update) { update.mutable_rank_ready(); });
    worker.Next(&v1::ConnectResponse::has_open_barrier);
    Stop();
    EXPECT_EQ(worker.End().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  Start();
  HandWorker worker(*daemons_, Worker());
  worker.Attach("w-1", "i-1", job_id, epoch);
  EXPECT_EQ(
      worker.Next(&v1::ConnectResponse::has_attached).attached().incarnation(),
      2);
  worker.Update(job_id, epoch,
                [](auto& update) { update.mutable_ranks_done(); });
  EXPECT_EQ(worker.Next(&v1::ConnectResponse::has_publish).publish().epoch(),
            epoch);
  EXPECT_EQ(Get(job_id).status().attempts_size(), 1);
}

TEST_F(ServiceTest, CancelReachesTheWorkerAtOnce) {
  HandWorker worker(*daemons_, Worker());
  worker.Attach("w-1");
  const std::string job_id = Create(Spec(), "r-1").value().job_id();
  const uint64_t epoch = worker.Next(&v1::ConnectResponse::has_start_attempt)
                             .start_attempt()
                             .epoch();
  v1::CancelJobRequest cancel;
  cancel.set_job_id(job_id);
  cancel.set_request_id("c-1");
  v1::Job job;
  ASSERT_TRUE(jobs_->CancelJob(Admin().get(), cancel, &job).ok());
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_CANCELLING);
  worker.Next(&v1::ConnectResponse::has_stop);
  worker.Update(job_id, epoch, [](auto& update) {
    update.mutable_ended()->set_cause(v1::ATTEMPT_CAUSE_STOPPED);
  });
  WatchToTheEnd(job_id);
  EXPECT_EQ(Get(job_id).status().state(), v1::JOB_STATE_CANCELLED);
}

TEST_F(ServiceTest, AWatchGoesOnAfterItsToken) {
  const std::string job_id = Create(Spec(), "r-1").value().job_id();
  v1::CancelJobRequest cancel;
  cancel.set_job_id(job_id);
  cancel.set_request_id("c-1");
  v1::Job job;
  ASSERT_TRUE(jobs_->CancelJob(Admin().get(), cancel, &job).ok());
  v1::WatchJobRequest watch;
  watch.set_job_id(job_id);
  watch.set_resume_token("e1");
  auto context = Admin();
  auto events = jobs_->WatchJob(context.get(), watch);
  std::vector<int64_t> seqs;
  v1::WatchJobResponse message;
  while (events->Read(&message)) {
    if (message.has_event()) seqs.push_back(message.event().job_seq());
  }
  EXPECT_THAT(seqs, ::testing::ElementsAre(2));

  watch.set_resume_token("nonsense");
  auto again = Admin();
  EXPECT_EQ(jobs_->WatchJob(again.get(), watch)->Finish().error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  watch.set_job_id("job-000000000000");
  auto missing = Admin();
  EXPECT_EQ(jobs_->WatchJob(missing.get(), watch)->Finish().error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServiceTest, AFailedJobIsResumedIfItsDataAreThere) {
  HandWorker worker(*daemons_, Worker());
  worker.Attach("w-1");
  const v1::JobSpec spec = Spec();
  const std::string job_id = Create(spec, "r-1").value().job_id();
  const v1::StartAttempt start =
      worker.Next(&v1::ConnectResponse::has_start_attempt).start_attempt();
  worker.Update(job_id, start.epoch(), [](v1::AttemptUpdate& update) {
    update.mutable_ended()->set_cause(v1::ATTEMPT_CAUSE_OOM_HOST);
  });
  EXPECT_TRUE(WatchToTheEnd(job_id).ok());
  ASSERT_EQ(Get(job_id).status().state(), v1::JOB_STATE_FAILED);

  v1::ResumeJobRequest resume;
  resume.set_job_id(job_id);
  resume.set_request_id("s-1");
  v1::Job job;
  const std::string& rows = spec.data().train(0).sha256();
  const std::string blob =
      JoinPath(dir_ / "data/blobs", absl::StrCat(rows.substr(0, 2), "/", rows));
  ASSERT_THAT(RemoveFile(blob), IsOk());
  const grpc::Status refused = jobs_->ResumeJob(Admin().get(), resume, &job);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), ::testing::HasSubstr("train.json"));

  StoreBlob(kRows);
  ASSERT_TRUE(jobs_->ResumeJob(Admin().get(), resume, &job).ok());
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_QUEUED);
  EXPECT_GT(worker.Next(&v1::ConnectResponse::has_start_attempt)
                .start_attempt()
                .epoch(),
            start.epoch());
}

TEST_F(ServiceTest, AStreamThatDoesNotBeginWithAttachIsEnded) {
  HandWorker worker(*daemons_, Worker());
  worker.Update("job-1", 1, [](auto& update) { update.mutable_accepted(); });
  EXPECT_EQ(worker.End().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServiceTest, TheSecondOfTwoDaemonsWithOneNameIsRefused) {
  HandWorker first(*daemons_, Worker());
  first.Attach("w-1", "i-1");
  first.Next(&v1::ConnectResponse::has_attached);
  HandWorker second(*daemons_, Worker());
  second.Attach("w-1", "i-2");
  EXPECT_EQ(second.End().error_code(), grpc::StatusCode::ALREADY_EXISTS);

  v1::ListWorkersResponse workers;
  ASSERT_TRUE(admin_->ListWorkers(Admin().get(), {}, &workers).ok());
  ASSERT_EQ(workers.workers_size(), 1);
  EXPECT_EQ(workers.workers(0).state(), v1::WORKER_STATE_READY);
  v1::ListModelsResponse models;
  ASSERT_TRUE(admin_->ListModels(Admin().get(), {}, &models).ok());
  EXPECT_EQ(models.models(0).model().name(), "tiny");
}

}  // namespace
}  // namespace ft
