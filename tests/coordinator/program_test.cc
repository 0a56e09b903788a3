// SPDX-License-Identifier: Apache-2.0
//
// The program itself: killed in the middle of submits, stopped in order, and
// started with addresses it must refuse.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/token.h"
#include "ft/v1/jobs.grpc.pb.h"
#include "tests/coordinator/coordinator_program.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::TestDir;

using Program = testing::CoordinatorProgram;

class ProgramTest : public ::testing::Test {
 protected:
  // Answers the job's id; empty: no answer came.
  std::string Submit(const std::string& address,
                     const std::string& request_id) {
    grpc::ClientContext context;
    Authorize(context);
    v1::Job job;
    const grpc::Status status =
        Stub(address)->CreateJob(&context, testing::SmallJob(request_id), &job);
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
  Program program(dir_, {.client_address = "0.0.0.0:0"});
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
