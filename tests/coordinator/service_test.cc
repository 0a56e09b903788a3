// SPDX-License-Identifier: Apache-2.0
//
// The coordinator behind its real listeners: tokens, roles, the whole way of a
// job over the wire, and what a restart keeps.

#include <gmock/gmock.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/digest.h"
#include "common/grpc_status.h"
#include "common/token.h"
#include "coordinator/access.h"
#include "coordinator/coordinator.h"
#include "coordinator/grpc_server.h"
#include "ft/v1/admin.grpc.pb.h"
#include "ft/v1/artifacts.grpc.pb.h"
#include "ft/v1/jobs.grpc.pb.h"
#include "ft/v1/workers.grpc.pb.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::HasCode;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::TestDir;

constexpr char kRows[] = R"([{"instruction": "hi", "output": "hello"}])";

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() { Start(); }

  void Start() {
    CoordinatorConfig config;
    config.data_dir = dir_ / "data";
    config.client_address = "127.0.0.1:0";
    config.worker_address = "127.0.0.1:0";
    config.http_address = "127.0.0.1:0";
    config.on_fatal = [](const absl::Status& error) {
      FAIL() << error.ToString();
    };
    coordinator_ = Coordinator::Start(std::move(config)).value();
    clients_ = Channel(coordinator_->client_address());
    workers_ = Channel(coordinator_->worker_address());
    jobs_ = v1::JobService::NewStub(clients_);
    admin_ = v1::AdminService::NewStub(clients_);
    uploads_ = v1::ArtifactService::NewStub(clients_);
    worker_uploads_ = v1::ArtifactService::NewStub(workers_);
    daemons_ = v1::WorkerService::NewStub(workers_);
  }
  void Stop() { coordinator_.reset(); }

  static std::shared_ptr<grpc::Channel> Channel(const std::string& address) {
    return grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  }
  std::unique_ptr<grpc::ClientContext> Context(const std::string& token) {
    auto context = std::make_unique<grpc::ClientContext>();
    if (!token.empty()) {
      context->AddMetadata("authorization", "Bearer " + token);
    }
    context->set_deadline(std::chrono::system_clock::now() +
                          std::chrono::seconds(20));
    return context;
  }
  std::unique_ptr<grpc::ClientContext> Admin() {
    return Context(coordinator_->admin_token());
  }
  std::unique_ptr<grpc::ClientContext> Worker() {
    return Context(coordinator_->worker_token());
  }

  // A raw call with an empty body, for methods of any shape.
  grpc::Status Raw(const std::shared_ptr<grpc::Channel>& channel,
                   const std::string& path, const std::string& token,
                   const std::string& body = "", std::string* answer = nullptr,
                   const std::string& raw_header = "") {
    grpc::GenericStub stub(channel);
    auto context = Context(token);
    if (!raw_header.empty()) context->AddMetadata("authorization", raw_header);
    grpc::CompletionQueue queue;
    const grpc::Slice slice(body);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::Status status;
    auto call = stub.PrepareUnaryCall(context.get(), path, request, &queue);
    call->StartCall();
    call->Finish(&response, &status, this);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    if (answer != nullptr && status.ok()) {
      std::vector<grpc::Slice> slices;
      EXPECT_TRUE(response.Dump(&slices).ok());
      for (const grpc::Slice& part : slices) {
        answer->append(reinterpret_cast<const char*>(part.begin()),
                       part.size());
      }
    }
    return status;
  }

  // Every method that this listener serves, as reflection tells.
  std::vector<std::string> Served(
      const std::shared_ptr<grpc::Channel>& channel) {
    std::vector<std::string> paths = {
        "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};
    // ServerReflectionRequest{list_services: "*"} and its answer,
    // list_services_response{service{name}}.
    std::string answer;
    EXPECT_TRUE(Raw(channel, paths.back(), coordinator_->admin_token(),
                    "\x3a\x01*", &answer)
                    .ok());
    google::protobuf::UnknownFieldSet fields;
    EXPECT_TRUE(fields.ParseFromString(answer));
    for (int i = 0; i < fields.field_count(); ++i) {
      if (fields.field(i).number() != 6) continue;
      google::protobuf::UnknownFieldSet services;
      EXPECT_TRUE(services.ParseFromString(fields.field(i).length_delimited()));
      for (int j = 0; j < services.field_count(); ++j) {
        google::protobuf::UnknownFieldSet service;
        EXPECT_TRUE(
            service.ParseFromString(services.field(j).length_delimited()));
        AddMethods(service.field(0).length_delimited(), paths);
      }
    }
    return paths;
  }
  static void AddMethods(const std::string& service,
                         std::vector<std::string>& paths) {
    if (absl::StartsWith(service, "grpc.")) return;  // Named above.
    const auto* descriptor =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(
            service);
    ASSERT_NE(descriptor, nullptr) << service;
    for (int i = 0; i < descriptor->method_count(); ++i) {
      paths.push_back(
          absl::StrCat("/", service, "/", descriptor->method(i)->name()));
    }
  }

  std::string StoreBlob(const std::string& bytes) {
    const std::string sha256 = Sha256Hex(bytes);
    const std::string folder =
        JoinPath(dir_ / "data/blobs", sha256.substr(0, 2));
    EXPECT_THAT(MakeDirs(folder), IsOk());
    EXPECT_THAT(WriteFileAtomic(JoinPath(folder, sha256), bytes), IsOk());
    return sha256;
  }
  v1::JobSpec Spec(int ranks = 1) {
    v1::JobSpec spec;
    spec.set_schema("ft.v1");
    spec.set_name("hotel-bot");
    spec.mutable_model()->set_base("tiny");
    v1::Dataset& dataset = *spec.mutable_data()->add_train();
    dataset.set_path("train.json");
    dataset.set_format(v1::DATA_FORMAT_ALPACA);
    dataset.set_sha256(StoreBlob(kRows));
    dataset.set_bytes(sizeof(kRows) - 1);
    spec.mutable_stage()->mutable_sft();
    spec.mutable_adaptation()->mutable_lora();
    spec.mutable_resources()->mutable_ranks()->set_max(ranks);
    return spec;
  }
  absl::StatusOr<v1::Job> Create(const v1::JobSpec& spec,
                                 const std::string& request_id) {
    v1::CreateJobRequest request;
    *request.mutable_spec() = spec;
    request.set_request_id(request_id);
    v1::Job job;
    const grpc::Status status = jobs_->CreateJob(Admin().get(), request, &job);
    if (!status.ok()) return FromGrpcStatus(status);
    return job;
  }
  v1::Job Get(const std::string& job_id) {
    v1::GetJobRequest request;
    request.set_job_id(job_id);
    v1::Job job;
    EXPECT_TRUE(jobs_->GetJob(Admin().get(), request, &job).ok());
    return job;
  }

  TestDir dir_;
  std::unique_ptr<Coordinator> coordinator_;
  std::shared_ptr<grpc::Channel> clients_;
  std::shared_ptr<grpc::Channel> workers_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
  std::unique_ptr<v1::ArtifactService::Stub> uploads_;
  std::unique_ptr<v1::ArtifactService::Stub> worker_uploads_;
  std::unique_ptr<v1::WorkerService::Stub> daemons_;
};

// A daemon by hand: says what a test wants and reads what it is told.
class HandWorker {
 public:
  HandWorker(v1::WorkerService::Stub& stub,
             std::unique_ptr<grpc::ClientContext> context)
      : context_(std::move(context)), stream_(stub.Connect(context_.get())) {}
  ~HandWorker() {
    if (is_over_) return;
    context_->TryCancel();
    stream_->Finish().IgnoreError();
  }

  void Attach(const std::string& id, const std::string& instance = "i-1",
              const std::string& job_id = "", uint64_t epoch = 0) {
    v1::ConnectRequest message;
    v1::Attach& attach = *message.mutable_attach();
    attach.set_worker_id(id);
    attach.set_instance_id(instance);
    attach.mutable_inventory()->add_slots();
    attach.add_models()->set_name("tiny");
    attach.mutable_models(0)->set_digest("d1");
    if (epoch != 0) {
      v1::AttachedAttempt& held = *attach.add_attempts();
      held.set_job_id(job_id);
      held.set_epoch(epoch);
      held.set_state(v1::ATTEMPT_STATE_RUNNING);
    }
    stream_->Write(message);
  }
  template <typename Fill>
  void Update(const std::string& job_id, uint64_t epoch, Fill fill) {
    v1::ConnectRequest message;
    message.mutable_attempt_update()->set_job_id(job_id);
    message.mutable_attempt_update()->set_epoch(epoch);
    fill(*message.mutable_attempt_update());
    stream_->Write(message);
  }
  // The next message of one kind; others are skipped.
  v1::ConnectResponse Next(bool (v1::ConnectResponse::*has)() const) {
    v1::ConnectResponse message;
    while (stream_->Read(&message)) {
      if ((message.*has)()) return message;
    }
    is_over_ = true;
    ADD_FAILURE() << "the stream ended: " << stream_->Finish().error_message();
    return {};
  }
  grpc::Status End() {
    v1::ConnectResponse message;
    while (stream_->Read(&message)) {
    }
    is_over_ = true;
    return stream_->Finish();
  }

 private:
  bool is_over_ = false;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<
      grpc::ClientReaderWriter<v1::ConnectRequest, v1::ConnectResponse>>
      stream_;
};

// --- Access ------------------------------------------------------------------

TEST_F(ServiceTest, EveryServedMethodHasARowOfRights) {
  const std::vector<std::string> known = KnownMethods();
  std::set<std::string> served;
  for (const auto& channel : {clients_, workers_}) {
    // Reflection is for admins; the workers' listener answers them too.
    for (const std::string& path : Served(channel)) served.insert(path);
  }
  EXPECT_EQ(served, std::set<std::string>(known.begin(), known.end()));
}

TEST_F(ServiceTest, EveryMethodRefusesWhoHasNoTokenOrAWrongOne) {
  const std::string good = coordinator_->admin_token();
  const std::string flipped =
      good.substr(0, 10) + (good[10] == 'a' ? 'b' : 'a') + good.substr(11);
  int refused = 0;
  for (const auto& channel : {clients_, workers_}) {
    std::vector<std::string> paths = KnownMethods();
    paths.push_back("/ft.v1.JobService/NoSuchMethod");
    paths.push_back("/no.such.Service/Method");
    for (const std::string& path : paths) {
      for (const std::string& token :
           {std::string(), std::string("x"), MakeToken(), flipped, good + "0",
            good.substr(0, good.size() - 1)}) {
        EXPECT_EQ(Raw(channel, path, token).error_code(),
                  grpc::StatusCode::UNAUTHENTICATED)
            << path;
        ++refused;
      }
      for (const std::string& header :
           {good, "Basic " + good, std::string("Bearer"), "bearer " + good}) {
        EXPECT_EQ(Raw(channel, path, "", "", nullptr, header).error_code(),
                  grpc::StatusCode::UNAUTHENTICATED)
            << path << " with " << header.substr(0, 6);
        ++refused;
      }
    }
  }
  EXPECT_GE(refused, 500);
}

TEST_F(ServiceTest, ATokenAllowsOnlyWhatItsRoleMay) {
  const auto refuses = [&](const auto& channel, const std::string& path,
                           const std::string& token) {
    return Raw(channel, path, token).error_code() ==
           grpc::StatusCode::PERMISSION_DENIED;
  };
  for (const std::string& path : KnownMethods()) {
    if (!CheckAccess(Role::kWorker, path).ok()) {
      EXPECT_TRUE(refuses(clients_, path, coordinator_->worker_token()))
          << path;
    }
    if (!CheckAccess(Role::kAdmin, path).ok()) {
      EXPECT_TRUE(refuses(workers_, path, coordinator_->admin_token())) << path;
    }
  }
  EXPECT_TRUE(refuses(clients_, "/ft.v1.JobService/NoSuchMethod",
                      coordinator_->admin_token()));
}

TEST_F(ServiceTest, HealthSaysThatItServes) {
  // HealthCheckRequest{service} and HealthCheckResponse{status: SERVING}.
  for (const std::string& service : {std::string(), std::string("ft.readiness"),
                                     std::string("ft.liveness")}) {
    const std::string body = absl::StrCat(
        "\x0a", std::string(1, static_cast<char>(service.size())), service);
    for (const auto& [channel, token] :
         {std::pair(clients_, coordinator_->admin_token()),
          std::pair(workers_, coordinator_->worker_token())}) {
      std::string answer;
      EXPECT_TRUE(
          Raw(channel, "/grpc.health.v1.Health/Check", token, body, &answer)
              .ok());
      EXPECT_EQ(answer, "\x08\x01") << service;
    }
  }
}

TEST_F(ServiceTest, AddressesBeyondLoopbackAreRefusedWithTheReason) {
  for (const char* address : {"0.0.0.0:0", "10.0.0.1:0", "[::]:0"}) {
    GrpcServerOptions options{.address = address,
                              .services = {},
                              .tokens = std::make_shared<TokenTable>()};
    const auto server = GrpcServer::Start(std::move(options));
    EXPECT_THAT(server, HasCode(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(std::string(server.status().message()), HasSubstr("TLS"));
  }
}

TEST_F(ServiceTest, ATakenPortIsSaid) {
  const auto server =
      GrpcServer::Start({.address = coordinator_->client_address(),
                         .services = {},
                         .tokens = std::make_shared<TokenTable>()});
  EXPECT_THAT(server, HasCode(absl::StatusCode::kUnavailable));
}

TEST_F(ServiceTest, ASecondCoordinatorOnTheSameDataIsRefused) {
  CoordinatorConfig config;
  config.data_dir = dir_ / "data";
  config.client_address = "127.0.0.1:0";
  config.worker_address = "127.0.0.1:0";
  config.http_address = "127.0.0.1:0";
  EXPECT_THAT(Coordinator::Start(std::move(config)),
              HasCode(absl::StatusCode::kFailedPrecondition));
}

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

// --- Artifacts ---------------------------------------------------------------

// What a client does with a file; `cut` bytes before it breaks off.
class Upload {
 public:
  Upload(v1::ArtifactService::Stub& stub, const std::string& bytes)
      : stub_(stub), bytes_(bytes) {}

  v1::BeginUploadResponse Begin(grpc::ClientContext* context,
                                const std::string& job_id = "",
                                uint64_t epoch = 0) {
    v1::BeginUploadRequest request;
    request.set_sha256(Sha256Hex(bytes_));
    request.set_bytes(static_cast<int64_t>(bytes_.size()));
    request.set_job_id(job_id);
    request.set_epoch(epoch);
    v1::BeginUploadResponse begun;
    status_ = stub_.BeginUpload(context, request, &begun);
    return begun;
  }
  // Sends [from, to) in pieces; the last acknowledged offset.
  int64_t Send(grpc::ClientContext* context, const std::string& id, size_t from,
               size_t to) {
    auto stream = stub_.Write(context);
    for (size_t at = from; at < to; at += kPiece) {
      v1::WriteRequest request;
      request.set_upload_id(id);
      request.set_offset(static_cast<int64_t>(at));
      request.set_data(bytes_.substr(at, std::min(kPiece, to - at)));
      request.set_crc32c(Crc32c(request.data()));
      if (!stream->Write(request)) break;
    }
    stream->WritesDone();
    v1::WriteResponse response;
    while (stream->Read(&response)) {
    }
    status_ = stream->Finish();
    return response.offset();
  }
  absl::Status End(grpc::ClientContext* context, const std::string& id) {
    v1::FinishUploadRequest request;
    request.set_upload_id(id);
    v1::FinishUploadResponse response;
    return FromGrpcStatus(stub_.FinishUpload(context, request, &response));
  }
  absl::Status status() const { return FromGrpcStatus(status_); }

 private:
  static constexpr size_t kPiece = 100'000;
  v1::ArtifactService::Stub& stub_;
  const std::string bytes_;
  grpc::Status status_;
};

std::string Bytes(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 131 >> 7);
  return bytes;
}

TEST_F(ServiceTest, AnUploadGoesOnWhereItBrokeOffEvenOverARestart) {
  const std::string bytes = Bytes(3'000'000);
  Upload upload(*uploads_, bytes);
  std::string id = upload.Begin(Admin().get()).upload_id();
  EXPECT_EQ(upload.Send(Admin().get(), id, 0, 1'234'567), 1'234'567);
  EXPECT_THAT(upload.End(Admin().get(), id),
              HasCode(absl::StatusCode::kOutOfRange));
  Stop();
  Start();
  Upload again(*uploads_, bytes);
  const v1::BeginUploadResponse begun = again.Begin(Admin().get());
  EXPECT_EQ(begun.offset(), 1'234'567);
  id = begun.upload_id();
  EXPECT_EQ(again.Send(Admin().get(), id, 1'234'567, bytes.size()), 3'000'000);
  EXPECT_THAT(again.End(Admin().get(), id), IsOk());
  EXPECT_THAT(again.End(Admin().get(), id), IsOk());
  EXPECT_TRUE(again.Begin(Admin().get()).complete());

  v1::ReadRequest read;
  read.set_sha256(Sha256Hex(bytes));
  read.set_offset(1'000);
  auto context = Admin();
  auto stream = uploads_->Read(context.get(), read);
  std::string got;
  v1::ReadResponse piece;
  while (stream->Read(&piece)) {
    EXPECT_EQ(piece.offset(), static_cast<int64_t>(1'000 + got.size()));
    EXPECT_EQ(piece.crc32c(), Crc32c(piece.data()));
    EXPECT_EQ(piece.total_bytes(), 3'000'000);
    got += piece.data();
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(got == bytes.substr(1'000));
}

TEST_F(ServiceTest, TheServersOffsetRules) {
  Upload upload(*uploads_, Bytes(500'000));
  const std::string id = upload.Begin(Admin().get()).upload_id();
  upload.Send(Admin().get(), id, 0, 200'000);
  upload.Send(Admin().get(), id, 100'000, 300'000);
  EXPECT_THAT(upload.status(), HasCode(absl::StatusCode::kOutOfRange));
  EXPECT_EQ(ReasonMetadataOf(upload.status()).at("offset"), "200000");
}

TEST_F(ServiceTest, WrongBytesAreNeverStored) {
  const std::string good = Bytes(1'000);
  std::string bad = good;
  bad[500] ^= 1;
  v1::BeginUploadRequest begin;
  begin.set_sha256(Sha256Hex(good));
  begin.set_bytes(1'000);
  v1::BeginUploadResponse begun;
  ASSERT_TRUE(uploads_->BeginUpload(Admin().get(), begin, &begun).ok());
  Upload upload(*uploads_, bad);
  EXPECT_EQ(upload.Send(Admin().get(), begun.upload_id(), 0, 1'000), 1'000);
  const absl::Status refused = upload.End(Admin().get(), begun.upload_id());
  EXPECT_THAT(refused, HasCode(absl::StatusCode::kDataLoss));
  v1::FindMissingRequest find;
  find.add_sha256(Sha256Hex(good));
  find.add_sha256(Sha256Hex(bad));
  v1::FindMissingResponse missing;
  ASSERT_TRUE(uploads_->FindMissing(Admin().get(), find, &missing).ok());
  EXPECT_EQ(missing.sha256_size(), 2);
}

TEST_F(ServiceTest, AWorkerUploadsForACurrentEpochOnly) {
  Upload upload(*worker_uploads_, "weights");
  upload.Begin(Worker().get());
  EXPECT_THAT(upload.status(), HasCode(absl::StatusCode::kAborted));
  upload.Begin(Worker().get(), "job-000000000000", 7);
  EXPECT_EQ(ReasonOf(upload.status()), "STALE_EPOCH");

  HandWorker worker(*daemons_, Worker());
  worker.Attach("w-1");
  const std::string job_id = Create(Spec(), "r-1").value().job_id();
  const uint64_t epoch = worker.Next(&v1::ConnectResponse::has_start_attempt)
                             .start_attempt()
                             .epoch();
  const std::string id =
      upload.Begin(Worker().get(), job_id, epoch).upload_id();
  EXPECT_THAT(upload.status(), IsOk());
  worker.Update(job_id, epoch, [](auto& update) {
    update.mutable_ended()->set_cause(v1::ATTEMPT_CAUSE_INVALID_ARGUMENT);
  });
  v1::WatchJobRequest watch;
  watch.set_job_id(job_id);
  auto context = Admin();
  auto events = jobs_->WatchJob(context.get(), watch);
  v1::WatchJobResponse message;
  while (events->Read(&message)) {
  }
  upload.Send(Worker().get(), id, 0, 7);
  EXPECT_EQ(ReasonOf(upload.status()), "STALE_EPOCH");
}

TEST_F(ServiceTest, ADataSetIsNamedOnceAndOnlyWithAllItsBlobs) {
  v1::Manifest manifest;
  manifest.set_kind(v1::ARTIFACT_KIND_DATASET);
  v1::FileEntry& file = *manifest.add_files();
  file.set_path("train.json");
  file.set_sha256(Sha256Hex("not stored"));
  v1::CommitArtifactRequest commit;
  commit.set_name("identity");
  commit.set_manifest_sha256(StoreBlob(manifest.SerializeAsString()));
  commit.set_request_id("c-1");
  v1::Artifact artifact;
  const auto missing = FromGrpcStatus(
      uploads_->CommitArtifact(Admin().get(), commit, &artifact));
  EXPECT_THAT(missing, HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(missing), "MISSING_BLOBS");

  file.set_sha256(StoreBlob(kRows));
  commit.set_manifest_sha256(StoreBlob(manifest.SerializeAsString()));
  commit.set_request_id("c-2");
  ASSERT_TRUE(uploads_->CommitArtifact(Admin().get(), commit, &artifact).ok());
  v1::GetArtifactRequest get;
  get.set_name("identity");
  ASSERT_TRUE(uploads_->GetArtifact(Admin().get(), get, &artifact).ok());
  EXPECT_EQ(artifact.manifest().files(0).path(), "train.json");

  file.set_path("other.json");
  commit.set_manifest_sha256(StoreBlob(manifest.SerializeAsString()));
  commit.set_request_id("c-3");
  EXPECT_EQ(
      uploads_->CommitArtifact(Admin().get(), commit, &artifact).error_code(),
      grpc::StatusCode::ALREADY_EXISTS);
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
  v1::WatchJobRequest watch;
  watch.set_job_id(job_id);
  auto context = Admin();
  auto events = jobs_->WatchJob(context.get(), watch);
  v1::WatchJobResponse message;
  while (events->Read(&message)) {
  }
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
