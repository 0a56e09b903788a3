// SPDX-License-Identifier: Apache-2.0
//
// The program itself: killed in the middle of submits, stopped in order, and
// started with addresses it must refuse.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <regex>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/token.h"
#include "ft/v1/jobs.grpc.pb.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::TestDir;

// One run of ft-coordinator over a data directory.
class Program {
 public:
  explicit Program(const TestDir& dir,
                   const std::string& client_address = "127.0.0.1:0")
      : endpoint_file_(dir / "endpoint.json"), log_(dir / "log") {
    EXPECT_THAT(RemoveFile(endpoint_file_), IsOk());
    std::vector<std::string> words = {FT_TEST_BINARY_DIR "/bin/ft-coordinator",
                                      "--data_dir",
                                      dir / "data",
                                      "--endpoint_file",
                                      endpoint_file_,
                                      "--client_address",
                                      client_address,
                                      "--worker_address",
                                      "127.0.0.1:0",
                                      "--http_address",
                                      "127.0.0.1:0"};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log_.c_str(),
                                       O_WRONLY | O_CREAT | O_APPEND, 0600);
    EXPECT_EQ(
        ::posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ),
        0);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  ~Program() {
    if (pid_ > 0) End(SIGKILL);
  }

  // The address of the clients' listener, once it listens.
  std::string ClientAddress() {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (!Exists(endpoint_file_)) {
      if (absl::Now() > deadline) {
        ADD_FAILURE() << "not ready: " << Log();
        return "";
      }
      absl::SleepFor(absl::Milliseconds(2));
    }
    const std::string json = ReadFile(endpoint_file_, 10'000).value();
    std::smatch found;
    EXPECT_TRUE(std::regex_search(
        json, found, std::regex("\"client_address\": \"([^\"]+)\"")));
    return found[1];
  }

  // The wait status after `signal`; 0: waits for it to end by itself.
  int End(int signal) {
    if (signal != 0) ::kill(pid_, signal);
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return status;
  }
  std::string Log() { return ReadFile(log_, 1 << 20).value_or(""); }

 private:
  const std::string endpoint_file_;
  const std::string log_;
  pid_t pid_ = -1;
};

class ProgramTest : public ::testing::Test {
 protected:
  // Answers the job's id; empty: no answer came.
  std::string Submit(const std::string& address,
                     const std::string& request_id) {
    v1::CreateJobRequest request;
    request.set_request_id(request_id);
    v1::JobSpec& spec = *request.mutable_spec();
    spec.set_schema("ft.v1");
    spec.set_name("hotel-bot");
    spec.mutable_model()->set_base("tiny");
    v1::Dataset& dataset = *spec.mutable_data()->add_train();
    dataset.set_path("train.json");
    dataset.set_format(v1::DATA_FORMAT_ALPACA);
    dataset.set_sha256(rows_sha256_);
    dataset.set_bytes(2);
    spec.mutable_stage()->mutable_sft();
    spec.mutable_adaptation()->mutable_lora();
    spec.mutable_resources()->mutable_ranks()->set_max(1);
    grpc::ClientContext context;
    Authorize(context);
    v1::Job job;
    const grpc::Status status =
        Stub(address)->CreateJob(&context, request, &job);
    if (!status.ok()) {
      EXPECT_NE(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
          << status.error_message();
      return "";
    }
    return job.job_id();
  }
  std::set<std::string> Jobs(const std::string& address) {
    std::set<std::string> ids;
    v1::ListJobsRequest request;
    request.set_page_size(1000);
    do {
      grpc::ClientContext context;
      Authorize(context);
      v1::ListJobsResponse page;
      EXPECT_TRUE(Stub(address)->ListJobs(&context, request, &page).ok());
      for (const v1::Job& job : page.jobs()) ids.insert(job.job_id());
      request.set_page_token(page.next_page_token());
    } while (!request.page_token().empty());
    return ids;
  }
  void Authorize(grpc::ClientContext& context) {
    const std::string token =
        ReadTokenFile(dir_ / "data/tokens/admin.token").value();
    context.AddMetadata("authorization", "Bearer " + token);
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(20));
  }
  std::unique_ptr<v1::JobService::Stub> Stub(const std::string& address) {
    return v1::JobService::NewStub(
        grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  }
  void StoreRows() {
    const std::string folder =
        JoinPath(dir_ / "data/blobs", rows_sha256_.substr(0, 2));
    ASSERT_THAT(MakeDirs(folder, 0700), IsOk());
    ASSERT_THAT(WriteFileAtomic(JoinPath(folder, rows_sha256_), "[]"), IsOk());
  }

  TestDir dir_;
  const std::string rows_sha256_ = Sha256Hex("[]");
};

TEST_F(ProgramTest, WhatWasAcknowledgedSurvivesKillNineAndNothingIsDoubled) {
  StoreRows();
  std::map<std::string, std::string> acknowledged;  // By request id.
  std::set<std::string> unanswered;
  for (int round = 0; round < 3; ++round) {
    Program program(dir_);
    const std::string address = program.ClientAddress();
    absl::Mutex mutex;
    std::atomic<bool> over = false;
    std::atomic<int> answers = 0;
    std::vector<std::thread> clients;
    for (int client = 0; client < 3; ++client) {
      clients.emplace_back([&, client] {
        for (int i = 0; !over; ++i) {
          const std::string request_id =
              absl::StrCat("r-", round, "-", client, "-", i);
          const std::string job_id = Submit(address, request_id);
          absl::MutexLock hold(&mutex);
          if (job_id.empty()) {
            unanswered.insert(request_id);
            return;
          }
          acknowledged[request_id] = job_id;
          ++answers;
        }
      });
    }
    while (answers < 20 * (round + 1)) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_TRUE(WIFSIGNALED(program.End(SIGKILL)));
    over = true;
    for (std::thread& client : clients) client.join();
  }

  Program program(dir_);
  const std::string address = program.ClientAddress();
  // Who got no answer asks again with the same request_id.
  for (const std::string& request_id : unanswered) {
    acknowledged[request_id] = Submit(address, request_id);
  }
  const std::set<std::string> stored = Jobs(address);
  std::set<std::string> wanted;
  for (const auto& [request_id, job_id] : acknowledged) {
    EXPECT_TRUE(wanted.insert(job_id).second) << "two requests, one job";
    EXPECT_EQ(Submit(address, request_id), job_id);
  }
  EXPECT_EQ(stored, wanted);
}

TEST_F(ProgramTest, ATermSignalEndsItInOrder) {
  Program program(dir_);
  program.ClientAddress();
  const int status = program.End(SIGTERM);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(ProgramTest, AnAddressBeyondLoopbackIsRefusedWithTheReason) {
  Program program(dir_, "0.0.0.0:0");
  const int status = program.End(0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_NE(WEXITSTATUS(status), 0);
  EXPECT_THAT(program.Log(), HasSubstr("--client_address"));
  EXPECT_THAT(program.Log(), HasSubstr("loopback"));
}

TEST_F(ProgramTest, NoTokenEverAppearsInTheLog) {
  Program program(dir_);
  program.ClientAddress();
  const std::string token =
      ReadTokenFile(dir_ / "data/tokens/admin.token").value();
  program.End(SIGTERM);
  EXPECT_THAT(program.Log(), ::testing::Not(HasSubstr(token)));
}

}  // namespace
}  // namespace ft
