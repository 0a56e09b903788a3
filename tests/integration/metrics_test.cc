// SPDX-License-Identifier: Apache-2.0
//
// What /metrics of both daemons says while a job runs, and to whom.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/file.h"
#include "common/token.h"
#include "tests/integration/tiny_chat.h"
#include "tests/testing/local_cluster.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::IsOk;
using testing::LocalCluster;
using testing::TinyChat;

class MetricsTest : public ::testing::Test {
 protected:
  std::string Get(const std::string& program, const std::string& path,
                  const std::string& token, int* status) {
    httplib::Client http(
        absl::StrCat("http://", cluster_.Endpoint(program, "http_address")));
    httplib::Headers headers;
    if (!token.empty()) headers.emplace("Authorization", "Bearer " + token);
    const auto answer = http.Get(path, headers);
    *status = answer ? answer->status : -1;
    return answer ? answer->body : "";
  }
  // Those of the coordinator want the admin's token, a worker's its own.
  std::string TokenOf(const std::string& program) {
    return ReadTokenFile(program == "coordinator" ? cluster_.AdminTokenFile()
                                                  : cluster_.WorkerTokenFile())
        .value();
  }
  std::string Metrics(const std::string& program) {
    int status = 0;
    const std::string text =
        Get(program, "/metrics", TokenOf(program), &status);
    EXPECT_EQ(status, 200) << program;
    return text;
  }
  // The value of the first series that begins so; -1: there is none.
  static double ValueOf(const std::string& text, const std::string& begin) {
    for (const absl::string_view line : absl::StrSplit(text, '\n')) {
      double value = 0;
      if (absl::StartsWith(line, begin) &&
          absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &value)) {
        return value;
      }
    }
    return -1;
  }
  // What promtool finds; empty: nothing.
  std::string Lint(const std::string& name, const std::string& text) {
    const std::string file = cluster_.dir() / (name + ".prom");
    const std::string found = cluster_.dir() / (name + ".lint");
    EXPECT_THAT(WriteFileAtomic(file, text), IsOk());
    const int code = std::system(
        absl::StrCat("'" FT_CACHE_DIR "/prometheus/usr/bin/promtool' check "
                     "metrics < '",
                     file, "' > '", found, "' 2>&1")
            .c_str());
    return code == 0 ? "" : ReadFile(found, 1 << 20).value_or("no promtool");
  }

  LocalCluster cluster_;
};

TEST_F(MetricsTest, BothDaemonsPassPromtoolWhileAJobRunsAndTheValuesMove) {
  const std::string id = cluster_.Submit(TinyChat(2, 400)).job_id();
  cluster_.WaitFor(id, [](const v1::Job& job) {
    return job.status().progress().step() > 20;
  });
  const std::string coordinator = Metrics("coordinator");
  const std::string worker = Metrics("w-1");
  EXPECT_EQ(Lint("coordinator", coordinator), "");
  EXPECT_EQ(Lint("worker", worker), "");
  EXPECT_EQ(ValueOf(coordinator,
                    "ft_coordinator_jobs{queue=\"default\",state=\"RUNNING\"}"),
            1)
      << coordinator;
  const double step = ValueOf(worker, "ft_worker_train_step{");
  EXPECT_GT(step, 0) << worker;
  cluster_.WaitFor(id, [&](const v1::Job& job) {
    return job.status().progress().step() > static_cast<int64_t>(step) + 20;
  });
  EXPECT_GT(ValueOf(Metrics("w-1"), "ft_worker_train_step{"), step);

  EXPECT_EQ(cluster_.WaitForEnd(id).status().state(), v1::JOB_STATE_SUCCEEDED);
  const std::string after = Metrics("coordinator");
  EXPECT_EQ(ValueOf(after,
                    "ft_coordinator_jobs{queue=\"default\",state=\"RUNNING\"}"),
            0)
      << after;
  EXPECT_EQ(ValueOf(after, "ft_coordinator_jobs_finished_total{outcome="), 1);
}

TEST_F(MetricsTest, OnlyTheProbesAreOpenToEverybody) {
  for (const std::string program : {"coordinator", "w-1"}) {
    int status = 0;
    for (const std::string path : {"/livez", "/readyz"}) {
      Get(program, path, "", &status);
      EXPECT_EQ(status, 200) << program << path;
    }
    for (const std::string path :
         {"/metrics", "/", "/v1/jobs", "/debug", "/livez/", "/metrics/../livez",
          "/%6cetrics"}) {
      for (const std::string& token :
           {std::string(), std::string("x"), MakeToken()}) {
        Get(program, path, token, &status);
        EXPECT_EQ(status, 401) << program << path;
      }
    }
  }
}

}  // namespace
}  // namespace ft
