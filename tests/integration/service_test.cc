// SPDX-License-Identifier: Apache-2.0
//
// ftctl as a user types it: a service of its own under HOME, a job from file to
// answer, two users side by side, what died revived, nothing left.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/file.h"
#include "common/token.h"
#include "jobspec/yaml_reader.h"
#include "tests/integration/tiny_chat.h"
#include "tests/testing/local_cluster.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::AreGone;
using ::testing::HasSubstr;
using testing::ProcessesWith;
using testing::TestDir;
using testing::TinyChat;

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
    EXPECT_TRUE(AreGone(home_.path())) << "a process is left";
  }
  Said Run(const std::string& words) {
    return Shell(absl::StrCat("ftctl ", words));
  }
  // A line for the shell, with our programs before all others.
  Said Shell(const std::string& line) {
    const std::string err = home_ / "stderr", script = home_ / "script";
    EXPECT_THAT(
        WriteFileAtomic(
            script, absl::StrCat("cd '" FT_TEST_SOURCE_DIR "'\n"
                                 "unset XDG_DATA_HOME FTCTL_ADDRESS "
                                 "FTCTL_TOKEN_FILE FT_MODEL_ROOT\n"
                                 "export HOME='",
                                 home_.path(),
                                 "' PATH='" FT_TEST_BINARY_DIR "/bin':$PATH\n",
                                 line, "\n")),
        testing::IsOk());
    const std::string command =
        absl::StrCat("bash '", script, "' 2>'", err, "' </dev/null");
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

TEST(ServiceTest, AModelThatLearnedAsAWholeIsAskedAndLearnsOn) {
  User user;
  user.Must("up --workers 2");
  user.Must("model import tests/golden/models/tiny_chat --name tiny-chat");
  user.Must("check examples/tiny_full.yaml");
  const std::string id = user.Must("submit examples/tiny_full.yaml -o name");
  user.Must("wait " + id);
  EXPECT_NE(user.Must(absl::StrCat("chat --job ", id,
                                   " --max_new_tokens 4 'Count to 3.'")),
            "");
  // The result is a model as any other.
  const std::string out = user.home() / "out";
  user.Must(absl::StrCat("fetch ", id, " '", out, "'"));
  user.Must(absl::StrCat("model import '", out, "' --name tiny-full"));
  EXPECT_THAT(user.Must("model ls -o name"), HasSubstr("tiny-full"));
  user.Must("down");
}

TEST(ServiceTest, AnAdapterOfAQuantisedBaseBecomesAModelThatAnswers) {
  User user;
  user.Must("up --workers 2");
  user.Must("model import tests/golden/models/tiny_chat --name tiny-chat");
  user.Must("check examples/tiny_chat_qlora.yaml");
  const std::string id =
      user.Must("submit examples/tiny_chat_qlora.yaml -o name");
  user.Must("wait " + id);
  const std::string merged = user.home() / "merged";
  const std::string merge =
      absl::StrCat("merge --job ", id, " --out '", merged, "' --dtype fp32");
  const auto json = nlohmann::json::parse(user.Must("-o json " + merge));
  EXPECT_EQ(json["base"], "nf4, double_quant");
  EXPECT_EQ(json["layers"].size(), 2u);
  const std::string ask = " --max_new_tokens 4 'Count to 3.'";
  EXPECT_EQ(user.Must(absl::StrCat("chat --model '", merged, "'", ask)),
            user.Must(absl::StrCat("chat --job ", id, ask)));
  // What is there is not replaced.
  EXPECT_EQ(user.Run(merge).code, 6);
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

// Writes the job of these tests to HOME; its name ends in ".yaml".
std::string WriteJob(const User& user, const std::string& yaml) {
  const std::string file = user.home() / "a job.yaml";
  EXPECT_THAT(
      WriteFileAtomic(
          file, absl::StrReplaceAll(yaml, {{"counting.jsonl", FT_TEST_SOURCE_DIR
                                            "/examples/counting.jsonl"}})),
      testing::IsOk());
  return absl::StrCat("'", file, "'");
}

// A service with a long job, a rank a worker, that runs.
std::string StartJob(User& user, int workers) {
  user.Must(absl::StrCat("up --workers ", workers));
  user.Must("model import tests/golden/models/tiny_chat --name tiny-chat");
  const std::string id = user.Must(absl::StrCat(
      "submit ", WriteJob(user, TinyChat(workers, 3000)), " -o name"));
  user.Must(absl::StrCat("wait ", id, " --for RUNNING --timeout 60"));
  return id;
}

TEST(ServiceTest, DownKeepsTheLastStepAndTheNextUpGoesOn) {
  User user;
  const std::string id = StartJob(user, 2);
  user.Must("down");
  user.Must("up --workers 2");
  const std::string events = user.Must("events " + id);
  EXPECT_THAT(events, HasSubstr("attempt 1 ended: YIELDED")) << events;
  EXPECT_THAT(events, HasSubstr("YIELDING -> QUEUED"));
  user.Must(absl::StrCat("wait ", id, " --for RUNNING --timeout 60"));
  const auto job = nlohmann::json::parse(user.Must("-o json get " + id));
  EXPECT_EQ(job["status"]["attempts"].size(), 2) << job;
  EXPECT_NE(job["status"]["attempts"][1].value("source_step", "0"), "0") << job;
  user.Must("cancel " + id);
  EXPECT_EQ(user.Run("wait --timeout 60 " + id).code, 11);
}

TEST(ServiceTest, DownDoesNotWaitForAJobThatNobodyWouldStore) {
  User user;
  const std::string id = StartJob(user, 1);
  ASSERT_EQ(kill(user.PidOf("coordinator"), SIGKILL), 0);
  const absl::Time begin = absl::Now();
  const Said down = user.Run("down --grace 120");
  EXPECT_EQ(down.code, 0) << down.err;
  EXPECT_THAT(down.err, HasSubstr("no coordinator answers"));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(15));
  EXPECT_TRUE(AreGone(user.Service()));
  // The job goes on as if the machine had lost its power.
  user.Must("up --workers 1");
  user.Must(absl::StrCat("wait ", id, " --for RUNNING --timeout 60"));
  user.Must("cancel " + id);
}

TEST(ServiceTest, ADaemonThatStandsStillIsToldAndCanBeEnded) {
  User user;
  user.Must("up --workers 1");
  for (const char* name : {"coordinator", "w-1"}) {
    const pid_t pid = user.PidOf(name);
    ASSERT_EQ(kill(pid, SIGSTOP), 0);
    const Said up = user.Run("up --workers 1");
    EXPECT_EQ(up.code, 6) << up.err;
    EXPECT_THAT(up.err, HasSubstr(absl::StrCat(
                            name, " is stopped; let it go on with: kill -CONT ",
                            pid, ", or end the service with: ftctl down")));
    ASSERT_EQ(kill(pid, SIGCONT), 0);
    user.Must("up --workers 1");
  }
  ASSERT_EQ(kill(user.PidOf("coordinator"), SIGSTOP), 0);
  ASSERT_EQ(kill(user.PidOf("w-1"), SIGSTOP), 0);
  const absl::Time begin = absl::Now();
  user.Must("down --grace 120");
  EXPECT_LT(absl::Now() - begin, absl::Seconds(60));
}

TEST(ServiceTest, UpsAtTheSameTimeGiveOneService) {
  User user;
  const Said said =
      user.Shell("ftctl up & ftctl up & ftctl up; code=$?; wait; exit $code");
  EXPECT_EQ(said.code, 0) << said.err;
  // The daemons; ranks that stand by have no folder of their own.
  EXPECT_EQ(ProcessesWith("--data_dir " + user.Service()).size(), 3u)
      << said.err;
  EXPECT_EQ(user.Must("workers -o name"), "w-1\nw-2");
}

TEST(ServiceTest, AnUpThatWasInterruptedAnywhereIsTidiedByDown) {
  User user;
  for (const char* seconds : {"0.005", "0.02", "0.05", "0.1", "0.2"}) {
    user.Shell(absl::StrCat("timeout --foreground -s INT ", seconds,
                            " ftctl up --workers 2"));
    user.Must("down --grace 10");
    EXPECT_TRUE(AreGone(user.Service())) << seconds;
  }
  // And nothing of it is in the way.
  user.Must("up --workers 2");
}

TEST(ServiceTest, WhatCannotStartIsToldAtOnce) {
  User user;
  Said said = user.Shell("HOME=/dev/null ftctl up");
  EXPECT_NE(said.code, 0);
  EXPECT_THAT(said.err, HasSubstr("/dev/null/.local"));

  // Without the daemons beside it.
  said = user.Shell(
      "mkdir \"$HOME/alone\" && cp \"$(command -v ftctl)\" \"$HOME/alone\" && "
      "\"$HOME/alone/ftctl\" up");
  EXPECT_EQ(said.code, 4) << said.err;
  EXPECT_THAT(said.err, HasSubstr("cannot start"));
  EXPECT_THAT(said.err, HasSubstr("alone/ft-coordinator"));
  // It checks what it can, and says so.
  said = user.Shell("\"$HOME/alone/ftctl\" check examples/tiny_chat.yaml");
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_THAT(said.err, HasSubstr("only the job file was checked"));

  // A coordinator that ends is not waited for; its own words are shown.
  user.Must("up --workers 1");
  user.Must("down");
  EXPECT_THAT(WriteFileAtomic(
                  JoinPath(user.Service(), "coordinator/tokens/admin.token"),
                  "no token\n", 0600),
              testing::IsOk());
  said = user.Run("up --workers 1");
  EXPECT_EQ(said.code, 1) << said.err;
  EXPECT_THAT(said.err, HasSubstr("the coordinator has ended"));
  EXPECT_THAT(said.err, HasSubstr("admin.token"));
}

TEST(ServiceTest, OneRequestIdIsOneJob) {
  User user;
  user.Must("up --workers 1");
  user.Must("model import tests/golden/models/tiny_chat --name tiny-chat");
  const std::string submit =
      absl::StrCat("submit ", WriteJob(user, TinyChat(1, 5)),
                   " -o name --request_id ci-run_7");
  const std::string id = user.Must(submit);
  EXPECT_EQ(user.Must(submit), id);
  EXPECT_EQ(user.Must("list -o name"), id);
  WriteJob(user, TinyChat(1, 6));
  const Said other = user.Run(submit);
  EXPECT_EQ(other.code, 6) << other.err;
  EXPECT_THAT(other.err, HasSubstr("request_id"));
  EXPECT_EQ(user.Must("list -o name"), id);
}

TEST(ServiceTest, AFetchGoesOnWhereItWasInterrupted) {
  User user;
  user.Must("up --workers 1");
  user.Must("model import tests/golden/models/tiny_chat --name tiny-chat");
  const std::string id = user.Must(
      absl::StrCat("submit ", WriteJob(user, TinyChat(1, 5)), " -o name"));
  user.Must(absl::StrCat("wait ", id));
  const std::string fetch = absl::StrCat("fetch ", id, " \"$HOME/o ut\"");
  user.Must(fetch);
  const std::string file = user.home() / "o ut/adapter_model.safetensors";
  const std::string whole = ReadFile(file, 1 << 24).value_or("");
  ASSERT_GT(whole.size(), 1000u);
  // Half of it, and the beginning of something else.
  for (const std::string& part :
       {whole.substr(0, whole.size() / 2), std::string(999, 'x')}) {
    FT_ASSERT_OK(RemoveFile(file));
    FT_ASSERT_OK(WriteFileAtomic(file + ".part", part));
    user.Must(fetch);
    EXPECT_TRUE(ReadFile(file, 1 << 24).value_or("") == whole);
    EXPECT_FALSE(Exists(file + ".part"));
  }
  // A file of other content is somebody's.
  FT_ASSERT_OK(WriteFileAtomic(file, "changed"));
  const Said refused = user.Run(fetch);
  EXPECT_EQ(refused.code, 6);
  EXPECT_THAT(refused.err, HasSubstr("there with other content"));
  EXPECT_EQ(ReadFile(file, 100).value_or(""), "changed");
  user.Must(fetch + " --force");
  EXPECT_TRUE(ReadFile(file, 1 << 24).value_or("") == whole);
}

TEST(ServiceTest, WhoeverWatchesLearnsWhyAJobWaits) {
  User user;
  user.Must("up --workers 1");
  user.Must("model import tests/golden/models/tiny_chat --name tiny-chat");
  const Said watched =
      user.Shell(absl::StrCat("timeout --signal INT 5 ftctl submit ",
                              WriteJob(user, TinyChat(2, 5)), " --watch"));
  EXPECT_THAT(watched.err, HasSubstr("waits: wants 2 slots"));
  EXPECT_THAT(watched.err, HasSubstr("add workers, or lower resources.ranks"));
}

bool IsOneDocument(const std::string& text) {
  return nlohmann::json::parse(text, nullptr, false).is_structured();
}

bool IsYaml(const std::string& text) {
  Violations violations;
  ReadYaml(text, violations);
  return !text.empty() && violations.empty();
}

TEST(ServiceTest, EveryOutputOfEveryVerbThatPrints) {
  User user;
  user.Must("up --workers 1");
  user.Must("model import tests/golden/models/tiny_chat --name tiny-chat");
  const std::string file = WriteJob(user, TinyChat(1, 5));
  const std::string id = user.Must(absl::StrCat("submit ", file, " -o name"));
  user.Must("wait " + id);
  const std::vector<std::string> verbs = {
      "list",      "workers",      "model ls",      "version",
      "get " + id, "events " + id, "metrics " + id, "check " + file};
  for (const std::string& verb : verbs) {
    EXPECT_TRUE(IsOneDocument(user.Must(verb + " -o json"))) << verb;
    EXPECT_TRUE(IsYaml(user.Must(verb + " -o yaml"))) << verb;
    EXPECT_NE(user.Must(verb + " -o name"), "") << verb;
  }
  EXPECT_EQ(user.Must("get -o name " + id), id);
  EXPECT_EQ(user.Must("check -o name " + file), "tiny-chat");
  // Streams: a message a line.
  for (const std::string& verb :
       {"watch " + id, "logs " + id, absl::StrCat("submit ", file, " -w")}) {
    const std::string lines = user.Must(verb + " -o json");
    for (const absl::string_view line : absl::StrSplit(lines, '\n')) {
      EXPECT_TRUE(IsOneDocument(std::string(line))) << verb << ": " << line;
    }
  }
  EXPECT_NE(user.Must("logs --tail 1 " + id), "");
  EXPECT_EQ(user.Must("logs --tail 0 " + id), "");
  EXPECT_EQ(user.Must("logs --tail 0 -f " + id), "");
  EXPECT_EQ(user.Run("logs --tail 0 job-000000000000").code, 4);
  // Data on stdout, talk on stderr.
  EXPECT_EQ(user.Run("watch " + id).out, "");
  EXPECT_EQ(user.Shell("ftctl list >/dev/full").code, 1);
}

TEST(ServiceTest, WhatAVerbHasDoneIsOneDocumentToo) {
  User user;
  const auto json = [&](const std::string& words) {
    return nlohmann::json::parse(user.Must(words + " -o json"), nullptr, false);
  };
  const nlohmann::json up = json("up --workers 1");
  EXPECT_EQ(up["workers"], nlohmann::json{"w-1"}) << up;
  EXPECT_EQ(user.Must(absl::StrCat(
                "list -o name --address ", up.value("client_address", ""),
                " --token_file '", up.value("token_file", ""), "'")),
            "");
  const std::string import =
      "model import tests/golden/models/tiny_chat --name ";
  EXPECT_EQ(json(import + "tiny-chat")["name"], "tiny-chat");
  EXPECT_TRUE(IsYaml(user.Must(import + "another -o yaml")));

  const std::string file = WriteJob(user, TinyChat(1, 5));
  const std::string id = user.Must(absl::StrCat("submit ", file, " -o name"));
  const nlohmann::json job = json("wait " + id);
  EXPECT_EQ(job["status"]["state"], "JOB_STATE_SUCCEEDED") << job;
  EXPECT_EQ(json(absl::StrCat("wait ", id, " --for succeeded")), job);

  const std::string fetch =
      absl::StrCat("fetch ", id, " '", user.home() / "o'");
  const nlohmann::json fetched = json(fetch);
  EXPECT_EQ(fetched["job_id"], id);
  ASSERT_FALSE(fetched["files"].empty()) << fetched;
  for (const nlohmann::json& one : fetched["files"]) {
    EXPECT_EQ(FileSize(one.value("path", "")).value_or(-1), one["bytes"]);
  }
  EXPECT_TRUE(IsYaml(user.Must(fetch + " -o yaml")));
  const std::string chat =
      absl::StrCat("chat --job ", id, " --max_new_tokens 4 'Count to 3.'");
  EXPECT_EQ(json(chat)["prompt"], "Count to 3.");
  EXPECT_EQ(json(chat)["answer"], user.Must(chat));
  EXPECT_TRUE(IsYaml(user.Must(chat + " -o yaml")));
  EXPECT_EQ(json("delete " + id)["deleted"], id);
  EXPECT_EQ(json("down")["stopped"], (nlohmann::json{"w-1", "coordinator"}));
  // Of what failed there is none.
  EXPECT_EQ(user.Run("fetch " + id + " -o json").out, "");
}

TEST(ServiceTest, TheExitCodeTellsWhatKindOfErrorItIs) {
  User user;
  const auto import = [&](const std::string& source) {
    return user.Run(absl::StrCat("model import ", source, " --name x"));
  };
  EXPECT_EQ(import("/nope").code, 4);
  EXPECT_THAT(import("/nope").err, HasSubstr("/nope: no such file"));
  FT_ASSERT_OK(WriteFileAtomic(user.home() / "x.gguf", "no model"));
  EXPECT_EQ(import("~/x.gguf").code, 3);

  user.Must("up --workers 1");
  user.Must("model import tests/golden/models/tiny_chat --name tiny-chat");
  const std::string id = user.Must(
      absl::StrCat("submit ", WriteJob(user, TinyChat(1, 5)), " -o name"));
  user.Must("wait " + id);
  FT_ASSERT_OK(MakeDirs(user.home() / "sealed", 0555));
  // Root may write everywhere, unless it gave up its capabilities.
  const std::string unprivileged =
      geteuid() == 0 ? "setpriv --bounding-set=-all --inh-caps=-all " : "";
  for (const char* dir : {"sealed", "sealed/x"}) {
    const Said said =
        user.Shell(absl::StrCat(unprivileged, "ftctl fetch ", id, " ~/", dir));
    EXPECT_EQ(said.code, 5) << dir << said.err;
    EXPECT_THAT(said.err, HasSubstr("/sealed/")) << dir;
  }
  EXPECT_EQ(user.Run("fetch " + id + " ~/x.gguf").code, 6);
}

TEST(ServiceTest, MetricsIsTheWholeCurve) {
  User user;
  user.Must("up --workers 1");
  user.Must("model import tests/golden/models/tiny_chat --name tiny-chat");
  const std::string id = user.Must(
      absl::StrCat("submit ", WriteJob(user, TinyChat(1, 50)), " -o name"));
  user.Must("wait " + id);
  const std::vector<std::string> csv =
      absl::StrSplit(user.Must(absl::StrCat("metrics ", id, " --csv")), '\n');
  ASSERT_EQ(csv.size(), 51u);
  const std::vector<std::string> names = absl::StrSplit(csv[0], ',');
  for (const std::string& line : csv) {
    EXPECT_EQ(std::count(line.begin(), line.end(), ','), 8) << line;
  }
  EXPECT_EQ(names[3], "validation_loss");
  const auto json = nlohmann::json::parse(
      user.Must(absl::StrCat("metrics ", id, " -o json")));
  // The step and the evaluation after it are a row, and two points.
  ASSERT_EQ(json["points"].size(), 51u);
  const std::vector<std::string> last = absl::StrSplit(csv[50], ',');
  EXPECT_EQ(last[0], "50");
  EXPECT_EQ(std::stod(last[2]), json["points"][49]["loss"].get<double>());
  EXPECT_EQ(std::stod(last[3]), json["points"][50]["eval_loss"].get<double>());
  const std::string table =
      user.Must(absl::StrCat("metrics ", id, " --after 48"));
  EXPECT_THAT(
      table, ::testing::MatchesRegex("STEP  EPOCH  LOSS .*\n49 .*\n50 [^\n]*"));
  EXPECT_EQ(user.Run("metrics job-000000000000").code, 4);
}

TEST(ServiceTest, AWrongTokenIsDenied) {
  User user;
  user.Must("up --workers 1");
  FT_ASSERT_OK(WriteFileAtomic(user.home() / "other", MakeToken(), 0600));
  for (const char* verb :
       {"list", "get a", "watch a", "wait a", "events a", "logs a", "cancel a",
        "delete a", "fetch a", "workers"}) {
    EXPECT_EQ(
        user.Run(absl::StrCat(verb, " --token_file \"$HOME/other\"")).code, 5)
        << verb;
  }
  EXPECT_EQ(user.Run("list --token_file ~/.local/share/ft/service/coordinator/"
                     "tokens/worker.token")
                .code,
            5);
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

TEST(ServiceTest, AWorkerThatCannotWorkSaysWhy) {
  User user;
  user.Must("up --workers 1");
  const std::string begin =
      "ft-worker --data_dir \"$HOME/w\" --model_root \"$HOME\" "
      "--coordinator \"$(python3 -c 'import json,sys; "
      "print(json.load(open(sys.argv[1]))[\"worker_address\"])' "
      "~/.local/share/ft/service/coordinator.json)\" --token_file "
      "~/.local/share/ft/service/coordinator/tokens/";
  Said said = user.Shell(absl::StrCat(
      begin, "worker.token --worker_id 'W x' --train_program /bin/true"));
  EXPECT_EQ(said.code, 1);
  EXPECT_THAT(said.err, HasSubstr("is no name"));
  said = user.Shell(absl::StrCat(
      begin, "worker.token --worker_id w --train_program /gone/ft-train"));
  EXPECT_EQ(said.code, 1);
  EXPECT_THAT(said.err, HasSubstr("--train_program /gone/ft-train: No such"));
  // The admin's token is not a worker's; it asks again, and says why once.
  said = user.Shell(absl::StrCat(
      begin,
      "admin.token --worker_id w --train_program /bin/true 2>\"$HOME/w.log\" "
      "&\n"
      "until grep -q reconnect \"$HOME/w.log\"; do sleep 0.05; done\n"
      "kill $!; wait; cat \"$HOME/w.log\""));
  EXPECT_THAT(said.out, HasSubstr("PERMISSION_DENIED: the admin token does not "
                                  "allow /ft.v1.WorkerService/Connect"));
}

TEST(ServiceTest, ProgramsRefuseToListenBeyondLoopback) {
  const TestDir dir;
  for (const std::string& words :
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
