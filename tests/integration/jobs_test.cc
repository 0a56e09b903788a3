// SPDX-License-Identifier: Apache-2.0
//
// Jobs over the real programs: equal bits whatever the number of ranks, cancel,
// priority, what is refused and what fails with which words.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "common/grpc_status.h"
#include "common/id.h"
#include "ctl/output.h"
#include "ctl/submit.h"
#include "jobspec/from_yaml.h"
#include "tests/integration/tiny_chat.h"
#include "tests/testing/local_cluster.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::HasCode;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::LocalCluster;
using testing::TinyChat;

double SecondsOf(const v1::Event& event) {
  return static_cast<double>(event.at().seconds()) +
         1e-9 * static_cast<double>(event.at().nanos());
}

TEST(JobsTest, OneAndTwoRanksGiveTheSameAdapterToTheBit) {
  LocalCluster cluster;
  const v1::Job one =
      cluster.WaitForEnd(cluster.Submit(TinyChat(1, 60)).job_id());
  const v1::Job two =
      cluster.WaitForEnd(cluster.Submit(TinyChat(2, 60)).job_id());
  EXPECT_EQ(one.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(two.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(cluster.Result(one).size(), 2);
  EXPECT_EQ(cluster.Result(one), cluster.Result(two));
  EXPECT_EQ(one.status().evaluation().eval_loss(),
            two.status().evaluation().eval_loss());
  // And it has learned something.
  EXPECT_LT(two.status().progress().loss(), 6.0);
}

TEST(JobsTest, AModelDividedOverItsRanksIsPublishedWholeAndTheSameToTheBit) {
  FT_ASSERT_OK_AND_ASSIGN(
      const std::string text,
      ReadFile(FT_TEST_SOURCE_DIR "/examples/tiny_full.yaml", 1 << 20));
  const std::string lanes = text + "determinism: {lanes: 2}\n";
  const std::string alone = absl::StrReplaceAll(
      lanes, {{"ranks: 2", "ranks: 1"}, {"zero_stage: 3", "zero_stage: 1"}});
  LocalCluster cluster;
  const v1::Job two = cluster.WaitForEnd(cluster.Submit(lanes).job_id());
  const v1::Job one = cluster.WaitForEnd(cluster.Submit(alone).job_id());
  EXPECT_EQ(two.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(one.status().state(), v1::JOB_STATE_SUCCEEDED);
  const auto files = cluster.Result(two);
  EXPECT_TRUE(files.contains("model.safetensors"));
  EXPECT_TRUE(files.contains("config.json"));
  EXPECT_TRUE(files.contains("tokenizer.json"));
  EXPECT_EQ(files, cluster.Result(one));
}

TEST(JobsTest, CancelStopsTheRanksWithinASecond) {
  // The timers of production: nothing here waits for one.
  LocalCluster cluster(2, 1.0);
  const std::string id = cluster.Submit(TinyChat(2, 20'000)).job_id();
  cluster.WaitFor(id, [](const v1::Job& job) {
    return job.status().progress().step() > 5;
  });
  ASSERT_EQ(cluster.Ranks(id).size(), 2);
  FT_ASSERT_OK(cluster.client().CancelJob(id).status());
  const v1::Job job = cluster.WaitForEnd(id);
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_TRUE(cluster.Ranks(id).empty());
  double cancelling = 0, ended = 0;
  for (const v1::Event& event : cluster.Events(id)) {
    if (event.message() == "RUNNING -> CANCELLING") {
      cancelling = SecondsOf(event);
    }
    if (event.kind() == v1::EVENT_KIND_ATTEMPT_ENDED) ended = SecondsOf(event);
  }
  ASSERT_GT(cancelling, 0);
  ASSERT_GT(ended, 0);
  EXPECT_LT(ended - cancelling, 1.0);
}

TEST(JobsTest, ACancelledJobFreesTheSlotsAndTheNextOneRuns) {
  LocalCluster cluster;
  const std::string first = cluster.Submit(TinyChat(2, 20'000)).job_id();
  const std::string second = cluster.Submit(TinyChat(2, 5)).job_id();
  cluster.WaitFor(first, [](const v1::Job& job) {
    return job.status().state() == v1::JOB_STATE_RUNNING;
  });
  EXPECT_EQ(cluster.client().GetJob(second)->status().state(),
            v1::JOB_STATE_QUEUED);
  FT_ASSERT_OK(cluster.client().CancelJob(first).status());
  // A second cancel of the same job changes nothing.
  FT_ASSERT_OK(cluster.client().CancelJob(first).status());
  EXPECT_EQ(cluster.WaitForEnd(second).status().state(),
            v1::JOB_STATE_SUCCEEDED);
}

TEST(JobsTest, TheMoreImportantJobGoesFirst) {
  LocalCluster cluster;
  const std::string first = cluster.Submit(TinyChat(2, 60)).job_id();
  const std::string later = cluster.Submit(TinyChat(2, 5)).job_id();
  const std::string urgent =
      cluster.Submit(TinyChat(2, 5, "priority: 90\n")).job_id();
  const auto started = [&](const std::string& id) {
    for (const v1::Event& event : cluster.Events(id)) {
      if (event.kind() == v1::EVENT_KIND_ATTEMPT_STARTED) {
        return SecondsOf(event);
      }
    }
    return 0.0;
  };
  for (const std::string& id : {first, later, urgent}) {
    EXPECT_EQ(cluster.WaitForEnd(id).status().state(), v1::JOB_STATE_SUCCEEDED);
  }
  EXPECT_LT(started(first), started(urgent));
  EXPECT_LT(started(urgent), started(later));
}

TEST(JobsTest, ASubmitIsThereAfterAKillAndIsDoneOnce) {
  LocalCluster cluster(0);
  absl::StatusOr<v1::JobSpec> spec = ParseJobFile(TinyChat(1, 5), "job.yaml");
  FT_ASSERT_OK(spec.status());
  // The model must be known: a worker that came once has told it.
  cluster.StartWorker(1);
  v1::Job first;
  cluster.WaitFor(cluster.Submit(TinyChat(1, 5)).job_id(),
                  [&](const v1::Job& job) {
                    first = job;
                    return true;
                  });
  v1::CreateJobRequest request;
  *request.mutable_spec() = first.spec();
  request.mutable_spec()->set_name("again");
  // What the coordinator has filled in.
  request.mutable_spec()->clear_export_();
  request.mutable_spec()->mutable_model()->clear_digest();
  request.set_request_id(MakeRequestId());
  const absl::StatusOr<v1::Job> made = cluster.client().CreateJob(request);
  FT_ASSERT_OK(made.status());
  cluster.EndCoordinator(SIGKILL);
  cluster.StartCoordinator();
  EXPECT_EQ(cluster.client().GetJob(made->job_id())->spec().name(), "again");

  const absl::StatusOr<v1::Job> same = cluster.client().CreateJob(request);
  FT_ASSERT_OK(same.status());
  EXPECT_EQ(same->job_id(), made->job_id());
  request.mutable_spec()->set_name("other");
  EXPECT_EQ(ReasonOf(cluster.client().CreateJob(request).status()),
            "REQUEST_ID_REUSED");
}

TEST(JobsTest, BadRowsEndTheJobOnceWithFileAndRow) {
  // `ftctl submit --no-check`, or another client: the ranks look again.
  LocalCluster cluster;
  const std::string folder = cluster.dir() / "data";
  std::filesystem::create_directories(folder);
  std::ofstream(JoinPath(folder, "rows.jsonl"))
      << R"({"messages": [{"role": "user", "content": "Hi"}, )"
      << R"({"role": "assistant", "content": "Ho"}]})" << "\n"
      << R"({"messages": [{"role": "user"}]})" << "\n";
  const absl::StatusOr<v1::JobSpec> spec = ParseJobFile(
      absl::StrReplaceAll(TinyChat(2, 5), {{"counting", "rows"}}), "job.yaml");
  FT_ASSERT_OK(spec.status());
  const absl::StatusOr<v1::Job> made = Submit(cluster.client(), *spec, folder);
  FT_ASSERT_OK(made.status());
  const v1::Job job = cluster.WaitForEnd(made->job_id());
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(job.status().attempts_size(), 1) << "bad data was tried again";
  EXPECT_THAT(job.status().message(), HasSubstr("rows.jsonl"));
  EXPECT_THAT(job.status().message(), HasSubstr("row 2"));
}

TEST(JobsTest, AnUnknownModelIsRefusedWithWhatIsThere) {
  LocalCluster cluster;
  const absl::StatusOr<v1::JobSpec> spec = ParseJobFile(
      absl::StrReplaceAll(TinyChat(2, 5), {{"base: tiny-chat", "base: tiny"}}),
      "job.yaml");
  FT_ASSERT_OK(spec.status());
  const absl::StatusOr<v1::Job> made =
      Submit(cluster.client(), *spec, FT_TEST_SOURCE_DIR "/examples");
  EXPECT_EQ(ReasonOf(made.status()), "UNKNOWN_MODEL");
  EXPECT_THAT(std::string(made.status().message()), HasSubstr("tiny-chat"));
}

TEST(JobsTest, AModelThatIsDamagedEndsTheJobWithItsName) {
  LocalCluster cluster;
  // After it was offered; the ranks find it.
  std::filesystem::resize_file(
      JoinPath(cluster.ModelRoot(), "tiny-chat/model.safetensors"), 1000);
  absl::StatusOr<v1::JobSpec> spec = ParseJobFile(TinyChat(1, 5), "job.yaml");
  FT_ASSERT_OK(spec.status());
  const absl::StatusOr<v1::Job> made =
      Submit(cluster.client(), *spec, FT_TEST_SOURCE_DIR "/examples");
  if (!made.ok()) {
    // The worker saw it first and offers the model no more.
    EXPECT_EQ(ReasonOf(made.status()), "UNKNOWN_MODEL");
    return;
  }
  const v1::Job job = cluster.WaitForEnd(made->job_id());
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(job.status().message(), HasSubstr("model.safetensors"));
}

}  // namespace
}  // namespace ft
