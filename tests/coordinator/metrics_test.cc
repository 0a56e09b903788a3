// SPDX-License-Identifier: Apache-2.0
//
// The coordinator's metrics: their names are an interface, so they are frozen
// here, and the door they are read through.

#include "coordinator/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <cstdlib>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "coordinator/coordinator.h"
#include "coordinator/effect_router.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::HasSubstr;
using testing::TestDir;
using ::testing::UnorderedElementsAre;

std::set<std::string> NamesIn(const std::string& text) {
  std::set<std::string> names;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, "# TYPE ")) continue;
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    names.insert(words.at(2));
  }
  return names;
}

TEST(CoordinatorMetricsTest, TheNamesAreThese) {
  EventBus bus;
  CoordinatorMetrics metrics;
  EffectRouter views(bus, metrics, [](const absl::Status&) {});
  using Kind = Observation::Kind;
  for (const Kind kind :
       {Kind::kTransition, Kind::kIllegal, Kind::kAttemptEnded, Kind::kFenced,
        Kind::kPlaced, Kind::kQueueWait, Kind::kFinished}) {
    metrics.Observe({.kind = kind, .a = "a", .b = "b", .value = 1});
  }
  metrics.Committed(absl::Milliseconds(2));
  metrics.RpcDone("GetJob", "OK", absl::Milliseconds(1));
  metrics.AuthDenied("bad_token");
  metrics.ArtifactBytes("in", 10);
  v1::StepMetrics point;
  metrics.Step("job-1", point);
  point.set_eval_loss(2);
  metrics.Step("job-1", point);
  EXPECT_THAT(
      NamesIn(metrics.Text(views, /*store_free_bytes=*/1)),
      UnorderedElementsAre(
          "ft_build_info", "ft_coordinator_artifact_bytes_total",
          "ft_coordinator_artifact_resumes_total",
          "ft_coordinator_artifact_verify_failures_total",
          "ft_coordinator_attempts_total", "ft_coordinator_auth_denied_total",
          "ft_coordinator_commit_seconds",
          "ft_coordinator_fenced_messages_total",
          "ft_coordinator_illegal_transitions_total", "ft_coordinator_jobs",
          "ft_coordinator_job_transitions_total",
          "ft_coordinator_jobs_finished_total",
          "ft_coordinator_placements_total",
          "ft_coordinator_queue_wait_seconds", "ft_coordinator_rpc_seconds",
          "ft_coordinator_slots", "ft_coordinator_store_free_bytes",
          "ft_coordinator_waiting_jobs", "ft_coordinator_workers",
          "ft_train_eval_loss", "ft_train_gradient_norm",
          "ft_train_learning_rate", "ft_train_loss", "ft_train_progress_ratio",
          "ft_train_step"));
}

TEST(CoordinatorMetricsTest, AnEndedJobLeavesNoSeries) {
  EventBus bus;
  CoordinatorMetrics metrics;
  EffectRouter views(bus, metrics, [](const absl::Status&) {});
  metrics.Step("job-1", {});
  EXPECT_THAT(metrics.Text(views, 1), HasSubstr("job-1"));
  metrics.JobOver("job-1");
  EXPECT_THAT(metrics.Text(views, 1), ::testing::Not(HasSubstr("job-1")));
}

class DoorTest : public ::testing::Test {
 protected:
  DoorTest() {
    CoordinatorConfig config;
    config.data_dir = dir_ / "data";
    config.client_address = "127.0.0.1:0";
    config.worker_address = "127.0.0.1:0";
    config.http_address = "127.0.0.1:0";
    coordinator_ = Coordinator::Start(std::move(config)).value();
  }
  int Get(const std::string& path, const std::string& token,
          std::string* body = nullptr) {
    httplib::Client client("http://" + coordinator_->http_address());
    httplib::Headers headers;
    if (!token.empty()) headers.emplace("Authorization", "Bearer " + token);
    const auto result = client.Get(path.c_str(), headers);
    if (!result) return -1;
    if (body != nullptr) *body = result->body;
    return result->status;
  }

  TestDir dir_;
  std::unique_ptr<Coordinator> coordinator_;
};

TEST_F(DoorTest, PromtoolFindsNoFault) {
  const char* cache = std::getenv("FT_CACHE");
  const char* home = std::getenv("HOME");
  const std::string promtool =
      (cache != nullptr
           ? std::string(cache)
           : absl::StrCat(home == nullptr ? "" : home, "/.cache/ft")) +
      "/prometheus/usr/bin/promtool";
  if (!Exists(promtool)) GTEST_SKIP() << "no " << promtool;
  std::string text;
  ASSERT_EQ(Get("/metrics", coordinator_->admin_token(), &text), 200);
  const std::string file = dir_ / "metrics.txt";
  ASSERT_TRUE(WriteFileAtomic(file, text).ok());
  EXPECT_EQ(
      std::system(absl::StrCat("'", promtool, "' check metrics < '", file, "'")
                      .c_str()),
      0);
}

TEST_F(DoorTest, OnlyLivezAndReadyzAreFree) {
  EXPECT_EQ(Get("/livez", ""), 200);
  EXPECT_EQ(Get("/readyz", ""), 200);
  for (const char* path : {"/metrics", "/", "/v1/jobs", "/metrics/", "/x"}) {
    EXPECT_EQ(Get(path, ""), 401) << path;
    EXPECT_EQ(Get(path, "ft_wrong"), 401) << path;
  }
  EXPECT_EQ(Get("/metrics", coordinator_->admin_token()), 200);
  EXPECT_EQ(Get("/metrics", coordinator_->worker_token()), 200);
}

}  // namespace
}  // namespace ft
