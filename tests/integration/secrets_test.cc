// SPDX-License-Identifier: Apache-2.0
//
// Secrets: no byte of the tokens, nor of a gang's secret, is in any file but
// the token files, in any argument or environment of a process, or in what a
// command says.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/token.h"
#include "tests/integration/tiny_chat.h"
#include "tests/testing/local_cluster.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::LocalCluster;
using testing::ProcessesWith;
using testing::TinyChat;

// The places below `dir` that hold one of `secrets`.
std::vector<std::string> FilesWith(const std::vector<std::string>& secrets,
                                   const std::string& dir) {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(dir)) {
    if (!entry.is_regular_file() || entry.path().extension() == ".token") {
      continue;
    }
    const std::string bytes =
        ReadFile(entry.path().string(), 1 << 28).value_or("");
    for (const std::string& secret : secrets) {
      if (absl::StrContains(bytes, secret)) {
        found.push_back(entry.path().string());
      }
    }
  }
  return found;
}

// The same of the arguments and environments of processes.
std::vector<std::string> ProcessesHolding(
    const std::vector<std::string>& secrets, const std::string& dir) {
  std::vector<std::string> found;
  for (const pid_t pid : ProcessesWith(dir)) {
    for (const char* what : {"cmdline", "environ"}) {
      const std::string path = absl::StrCat("/proc/", pid, "/", what);
      const std::string bytes = ReadFile(path, 1 << 20).value_or("");
      for (const std::string& secret : secrets) {
        if (absl::StrContains(bytes, secret)) found.push_back(path);
      }
    }
  }
  return found;
}

// A token as it is, and the hexadecimal digits in the middle of it alone.
std::vector<std::string> Forms(const std::string& token) {
  const std::string digits = token.substr(3, 64);
  return {token, digits, absl::HexStringToBytes(digits)};
}

TEST(SecretsTest, NoSecretIsInAnyOutput) {
  LocalCluster cluster;
  std::vector<std::string> secrets;
  for (const std::string& file :
       {cluster.AdminTokenFile(), cluster.WorkerTokenFile()}) {
    FT_ASSERT_OK_AND_ASSIGN(const std::string token, ReadTokenFile(file));
    for (const std::string& form : Forms(token)) secrets.push_back(form);
  }
  const std::string id = cluster.Submit(TinyChat(2, 200)).job_id();
  cluster.WaitFor(id, [](const v1::Job& job) {
    return job.status().checkpoint_step() > 0;
  });
  ASSERT_EQ(cluster.Ranks(id).size(), 2u);
  EXPECT_THAT(ProcessesHolding(secrets, cluster.dir().path()),
              ::testing::IsEmpty());
  EXPECT_THAT(FilesWith(secrets, cluster.dir().path()), ::testing::IsEmpty());
  const v1::Job job = cluster.WaitForEnd(id);
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(FilesWith(secrets, cluster.dir().path()), ::testing::IsEmpty());

  // A wrong token is not repeated by the error.
  const std::string wrong = MakeToken();
  FT_ASSERT_OK(WriteFileAtomic(cluster.dir() / "wrong.token", wrong, 0600));
  const auto client = Client::Connect(
      {.address = cluster.Endpoint("coordinator", "client_address"),
       .token_file = cluster.dir() / "wrong.token"});
  ASSERT_TRUE(client.ok());
  const absl::Status refused = (*client)->GetJob(id).status();
  EXPECT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.message()),
              ::testing::Not(::testing::HasSubstr(wrong.substr(3, 64))));
  EXPECT_THAT(FilesWith(Forms(wrong), cluster.dir() / "coordinator"),
              ::testing::IsEmpty());
}

// The search finds what it must not find.
TEST(SecretsTest, APlantedCanaryIsFound) {
  const testing::TestDir dir;
  const std::string token = MakeToken();
  FT_ASSERT_OK(WriteFileAtomic(dir / "log", "x " + token + " y"));
  EXPECT_EQ(FilesWith(Forms(token), dir.path()).size(), 2u);
}

TEST(SecretsTest, NobodyReadsTheMemoryOfADaemonOrARank) {
  LocalCluster cluster(1);
  const std::string id = cluster.Submit(TinyChat(1, 200)).job_id();
  cluster.WaitFor(id, [](const v1::Job& job) {
    return job.status().progress().step() > 0;
  });
  int seen = 0;
  for (const pid_t pid : ProcessesWith(cluster.dir().path())) {
    struct stat info{};
    // What is not dumpable belongs to root, whoever runs it; as root we look
    // at the limit of core files instead.
    ASSERT_EQ(stat(absl::StrCat("/proc/", pid).c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 0u) << pid;
    const std::string limits =
        ReadFile(absl::StrCat("/proc/", pid, "/limits"), 1 << 16).value();
    EXPECT_THAT(limits, ::testing::ContainsRegex("Max core file size +0 +0"));
    ++seen;
  }
  EXPECT_GE(seen, 3);
}

}  // namespace
}  // namespace ft
