// SPDX-License-Identifier: Apache-2.0
//
// A coordinator behind its real listeners, and by hand a daemon that says what
// a test wants.

#pragma once

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

namespace ft::testing {

inline constexpr char kRows[] = R"([{"instruction": "hi", "output": "hello"}])";

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
  // Reads the job's watch until it ends: with the job, if all is well.
  grpc::Status WatchToTheEnd(const std::string& job_id) {
    v1::WatchJobRequest request;
    request.set_job_id(job_id);
    const auto context = Admin();
    const auto events = jobs_->WatchJob(context.get(), request);
    v1::WatchJobResponse message;
    while (events->Read(&message)) {
    }
    return events->Finish();
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

}  // namespace ft::testing
