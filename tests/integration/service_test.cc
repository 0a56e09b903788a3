// SPDX-License-Identifier: Apache-2.0
//
// ftctl as a user types it: a service of its own under HOME, a job from file to
// answer, two users side by side, what died revived, nothing left.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/file.h"
#include "tests/testing/local_cluster.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::HasSubstr;
using testing::ProcessesWith;
using testing::TestDir;

struct Said {
  int code = -1;
  std::string out;
  std::string err;
};

// Somebody with a HOME of their own.
class User {
 public:
  ~User() {
    Run("down --grace 5");
    EXPECT_TRUE(ProcessesWith(home_.path()).empty()) << "a process is left";
  }
  Said Run(const std::string& words) {
    const std::string err = home_ / "stderr";
    const std::string command = absl::StrCat(
        "cd '" FT_TEST_SOURCE_DIR "' && env -u XDG_DATA_HOME HOME='",
        home_.path(), "' '" FT_TEST_BINARY_DIR "/bin/ftctl' ", words, " 2>'",
        err, "' </dev/null");
    FILE* const pipe = popen(command.c_str(), "r");
    Said said;
    char buffer[4096];
    while (const size_t got = fread(buffer, 1, sizeof(buffer), pipe)) {
      said.out.append(buffer, got);
    }
    const int status = pclose(pipe);
    said.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    said.err = ReadFile(err, 1 << 20).value_or("");
    return said;
  }
  // What it printed; the verb must succeed.
  std::string Must(const std::string& words) {
    const Said said = Run(words);
    EXPECT_EQ(said.code, 0) << words << ": " << said.err;
    return std::string(absl::StripSuffix(said.out, "\n"));
  }
  std::string Service() const { return home_ / ".local/share/ft/service"; }
  pid_t PidOf(const std::string& name) const {
    const auto value = nlohmann::json::parse(
        ReadFile(JoinPath(Service(), name + ".json"), 1 << 16).value_or("{}"),
        nullptr, false);
    return value.value("pid", 0);
  }
  const TestDir& home() const { return home_; }

 private:
  const TestDir home_;
};

TEST(ServiceTest, AJobFromItsFileToTheAnswer) {
  User user;
  user.Must("up --workers 2");
  user.Must("model import tests/golden/models/tiny_chat --name tiny-chat");
  EXPECT_EQ(user.Must("model ls -o name"), "tiny-chat");
  user.Must("check examples/tiny_chat.yaml");
  // The very next command after an import.
  const std::string id = user.Must("submit examples/tiny_chat.yaml -o name");
  EXPECT_THAT(id, ::testing::MatchesRegex("job-[0-9a-z]{12}"));
  const Said watched = user.Run("watch " + id);
  EXPECT_EQ(watched.code, 0) << watched.err;
  EXPECT_THAT(watched.err, HasSubstr("step 20/20"));
  EXPECT_THAT(watched.err, HasSubstr("validation loss"));
  EXPECT_THAT(watched.err, HasSubstr("SUCCEEDED"));
  user.Must("wait " + id);
  EXPECT_THAT(user.Must("list"), HasSubstr(id));
  EXPECT_THAT(user.Must("get " + id), HasSubstr("SUCCEEDED"));
  const auto json = nlohmann::json::parse(user.Must("-o json get " + id));
  EXPECT_EQ(json["status"]["state"], "JOB_STATE_SUCCEEDED");
  EXPECT_THAT(user.Must("events " + id), HasSubstr("CHECKPOINT_COMMITTED"));
  EXPECT_THAT(user.Must("logs " + id), HasSubstr("rank started"));
  EXPECT_THAT(user.Must("workers"), HasSubstr("w-2"));

  const std::string out = user.home() / "out";
  user.Must(absl::StrCat("fetch ", id, " '", out, "'"));
  EXPECT_TRUE(Exists(JoinPath(out, "adapter_config.json")));
  EXPECT_TRUE(Exists(JoinPath(out, "adapter_model.safetensors")));
  EXPECT_NE(user.Must(absl::StrCat("chat --job ", id,
                                   " --max_new_tokens 4 'Count to 3.'")),
            "");

  // A job that was over cannot be cancelled, but deleted, once.
  EXPECT_EQ(user.Run("cancel " + id).code, 6);
  user.Must("delete " + id);
  EXPECT_EQ(user.Run("get " + id).code, 4);
}

TEST(ServiceTest, TwoUsersLiveSideBySide) {
  User one, two;
  one.Must("up --workers 1");
  two.Must("up --workers 1");
  one.Must("model import tests/golden/models/tiny_chat --name tiny-chat");
  EXPECT_EQ(two.Must("model ls -o name"), "");
  EXPECT_EQ(one.Must("list -o name"), "");
  one.Must("down");
  // The other one's service did not notice.
  two.Must("list");
  EXPECT_EQ(one.Run("list").code, 7);
}

TEST(ServiceTest, ASecondUpRevivesWhatDied) {
  User user;
  user.Must("up --workers 2");
  const pid_t coordinator = user.PidOf("coordinator");
  const pid_t first = user.PidOf("w-1"), second = user.PidOf("w-2");
  user.Must("up --workers 2");
  EXPECT_EQ(user.PidOf("coordinator"), coordinator);
  EXPECT_EQ(user.PidOf("w-1"), first);

  ASSERT_EQ(kill(second, SIGKILL), 0);
  user.Must("up --workers 2");
  EXPECT_NE(user.PidOf("w-2"), second);
  EXPECT_EQ(user.PidOf("w-1"), first);

  ASSERT_EQ(kill(coordinator, SIGKILL), 0);
  user.Must("up --workers 2");
  EXPECT_NE(user.PidOf("coordinator"), coordinator);
  EXPECT_EQ(user.PidOf("w-1"), first) << "it finds the new one by itself";
}

TEST(ServiceTest, TokensAndFoldersAreForTheirOwnerAlone) {
  User user;
  user.Must("up --workers 1");
  const auto mode = [&](const std::string& path) {
    return static_cast<int>(
        std::filesystem::status(JoinPath(user.Service(), path)).permissions());
  };
  EXPECT_EQ(mode("coordinator/tokens/admin.token"), 0600);
  EXPECT_EQ(mode("coordinator/tokens/worker.token"), 0600);
  EXPECT_EQ(mode("coordinator") & 077, 0);
  EXPECT_EQ(mode(".") & 077, 0);
}

TEST(ServiceTest, ProgramsRefuseToListenBeyondLoopback) {
  const TestDir dir;
  for (const std::string words :
       {absl::StrCat("ft-coordinator --data_dir '", dir.path(),
                     "/c' --client_address 0.0.0.0:0"),
        absl::StrCat("ft-coordinator --data_dir '", dir.path(),
                     "/c' --http_address 192.0.2.1:0"),
        absl::StrCat("ft-worker --data_dir '", dir.path(),
                     "/w' --coordinator 192.0.2.1:7444 --token_file /dev/null "
                     "--worker_id w --model_root . --train_program true")}) {
    const std::string command = absl::StrCat(FT_TEST_BINARY_DIR "/bin/", words,
                                             " 2>'", dir / "err", "'");
    EXPECT_NE(std::system(command.c_str()), 0) << words;
    EXPECT_THAT(ReadFile(dir / "err", 1 << 16).value_or(""), HasSubstr("TLS"))
        << words;
  }
}

}  // namespace
}  // namespace ft
