// SPDX-License-Identifier: Apache-2.0
//
// Who watches a job or follows its logs sees all of it once, also over a kill
// of the coordinator.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <thread>

#include "tests/integration/tiny_chat.h"
#include "tests/testing/local_cluster.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::IsOk;
using testing::LocalCluster;
using testing::TinyChat;

class StreamsTest : public ::testing::Test {
 protected:
  // A reader's own client: it stays while the coordinator goes.
  std::unique_ptr<Client> NewClient() {
    absl::StatusOr<std::unique_ptr<Client>> client = Client::Connect(
        {.address = cluster_.Endpoint("coordinator", "client_address"),
         .token_file = cluster_.AdminTokenFile()});
    EXPECT_THAT(client, IsOk());
    (*client)->OnBreak([this](const absl::Status& status) {
      EXPECT_TRUE(absl::IsUnavailable(status)) << status;
      ++breaks_;
    });
    return *std::move(client);
  }

  LocalCluster cluster_;
  std::atomic<int> breaks_ = 0;
};

TEST_F(StreamsTest, GoOnOverAKillOfTheCoordinator) {
  const std::string id = cluster_.Submit(TinyChat(2, 400)).job_id();
  std::vector<int64_t> seqs;
  bool has_ended = false;
  std::thread watcher([&, client = NewClient()] {
    EXPECT_THAT(client->WatchJob(id,
                                 [&](const v1::WatchJobResponse& update) {
                                   EXPECT_FALSE(update.has_gap());
                                   if (update.has_event()) {
                                     seqs.push_back(update.event().job_seq());
                                   }
                                   has_ended |= update.job().status().state() ==
                                                v1::JOB_STATE_SUCCEEDED;
                                   return true;
                                 }),
                IsOk());
  });
  std::vector<std::string> followed;
  std::thread follower([&, client = NewClient()] {
    v1::TailLogsRequest request;
    request.set_job_id(id);
    request.set_follow(true);
    EXPECT_THAT(client->TailLogs(request,
                                 [&](const v1::LogLine& line) {
                                   followed.push_back(line.SerializeAsString());
                                 }),
                IsOk());
  });
  for (const int step : {30, 120}) {
    cluster_.WaitFor(id, [&](const v1::Job& job) {
      return job.status().progress().step() > step;
    });
    cluster_.EndCoordinator(SIGKILL);
    cluster_.StartCoordinator();
  }
  EXPECT_EQ(cluster_.WaitForEnd(id).status().state(), v1::JOB_STATE_SUCCEEDED);
  watcher.join();
  follower.join();

  EXPECT_GE(breaks_, 2) << "nothing was broken";
  EXPECT_TRUE(has_ended);
  std::vector<int64_t> stored;
  for (const v1::Event& event : cluster_.Events(id)) {
    stored.push_back(event.job_seq());
  }
  EXPECT_EQ(seqs, stored);
  std::vector<std::string> lines;
  v1::TailLogsRequest all;
  all.set_job_id(id);
  FT_ASSERT_OK(cluster_.client().TailLogs(all, [&](const v1::LogLine& line) {
    lines.push_back(line.SerializeAsString());
  }));
  EXPECT_FALSE(lines.empty());
  EXPECT_EQ(followed, lines);
}

}  // namespace
}  // namespace ft
