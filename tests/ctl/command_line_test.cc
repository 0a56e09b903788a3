// SPDX-License-Identifier: Apache-2.0
//
// What can be typed: the verbs, their help, what is said of a word that is
// none, and the exit codes of everything that needs no service.

#include "ctl/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/file.h"
#include "common/token.h"
#include "tests/testing/scoped_env.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::HasSubstr;
using testing::ScopedEnv;
using testing::TestDir;

struct Said {
  int code = 0;
  std::string out;
  std::string err;
};

// In a home without a service.
class CommandLineTest : public ::testing::Test {
 protected:
  Said Run(const std::string& words) {
    std::vector<std::string> given = {"ftctl"};
    for (const absl::string_view word :
         absl::StrSplit(words, ' ', absl::SkipEmpty())) {
      given.emplace_back(word);
    }
    std::vector<const char*> argv;
    for (const std::string& word : given) argv.push_back(word.c_str());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    Said said;
    said.code = RunCommandLine(static_cast<int>(argv.size()), argv.data());
    std::fflush(stdout);
    said.out = ::testing::internal::GetCapturedStdout();
    said.err = ::testing::internal::GetCapturedStderr();
    return said;
  }
  void Expect(const std::string& words, int code, const std::string& err) {
    const Said said = Run(words);
    EXPECT_EQ(said.code, code) << words << "\n" << said.err;
    EXPECT_THAT(said.err, HasSubstr(err)) << words;
    EXPECT_EQ(said.out, "") << words;
  }

  const TestDir home_;
  const ScopedEnv data_{"XDG_DATA_HOME", home_.path().c_str()};
  const ScopedEnv address_{"FTCTL_ADDRESS", nullptr};
  const ScopedEnv token_{"FTCTL_TOKEN_FILE", nullptr};
  const ScopedEnv models_{"FT_MODEL_ROOT", nullptr};
};

// Calls `act` for every verb, those below a verb too.
void ForEachVerb(const CLI::App& app,
                 const std::function<void(const CLI::App&)>& act) {
  for (const CLI::App* verb : app.get_subcommands({})) {
    act(*verb);
    ForEachVerb(*verb, act);
  }
}

TEST_F(CommandLineTest, TheVerbsAreFrozen) {
  GlobalOptions options;
  int code = 0;
  std::vector<std::string> verbs;
  ForEachVerb(*MakeCommandLine(options, code),
              [&](const CLI::App& verb) { verbs.push_back(verb.get_name()); });
  EXPECT_THAT(verbs,
              ::testing::UnorderedElementsAre(
                  "up", "down", "check", "plan", "submit", "list", "get",
                  "watch", "wait", "events", "logs", "metrics", "cancel",
                  "resume", "delete", "fetch", "chat", "merge", "workers", "ls",
                  "release", "model", "import", "ls", "version", "completion"));
}

TEST_F(CommandLineTest, EveryVerbHasAnExampleAndEveryOptionItsMeaning) {
  GlobalOptions options;
  int code = 0;
  ForEachVerb(*MakeCommandLine(options, code), [](const CLI::App& verb) {
    const std::string above = verb.get_parent()->get_name();
    EXPECT_THAT(
        verb.get_footer(),
        HasSubstr(absl::StrCat("ftctl ", above == "ftctl" ? "" : above + " ",
                               verb.get_name())))
        << verb.get_name();
    EXPECT_EQ(verb.get_description().find('\n'), std::string::npos)
        << verb.get_name();
    for (const CLI::Option* option : verb.get_options()) {
      EXPECT_NE(option->get_description(), "")
          << verb.get_name() << " " << option->get_name();
    }
  });
}

TEST_F(CommandLineTest, HelpAndVersionAreNoErrors) {
  const Said help = Run("--help");
  EXPECT_EQ(help.code, 0);
  for (const char* want : {"ftctl up --workers 2", "Exit codes: 0 ok", "submit",
                           "11 cancelled", "FTCTL_ADDRESS"}) {
    EXPECT_THAT(help.out, HasSubstr(want));
  }
  const Said submit = Run("submit --help");
  EXPECT_EQ(submit.code, 0);
  EXPECT_THAT(submit.out, HasSubstr("Examples:\n  ftctl submit job.yaml"));
  // The overview is one.
  EXPECT_THAT(help.out, ::testing::Not(HasSubstr("JOB=$(ftctl")));
  EXPECT_EQ(Run("model import --help").code, 0);
  EXPECT_THAT(Run("--version").out, HasSubstr("ftctl 0."));
  EXPECT_THAT(Run("version").out, HasSubstr("ftctl 0."));
  EXPECT_THAT(Run("version -o json").out, HasSubstr("\"version\": \"0."));
  EXPECT_THAT(Run("version -o yaml").out, HasSubstr("version: \"0."));
}

TEST_F(CommandLineTest, HelpSaysWhatAnOptionIsWithoutIt) {
  EXPECT_THAT(Run("up --help").out, HasSubstr("=2\n"));
  EXPECT_THAT(Run("down --help").out, HasSubstr("=30\n"));
  EXPECT_THAT(Run("list --help").out, HasSubstr("=50\n"));
  EXPECT_THAT(Run("chat --help").out, HasSubstr("=256\n"));
  EXPECT_THAT(Run("--help").out, HasSubstr("=table\n"));
  EXPECT_THAT(Run("logs --help").out,
              HasSubstr("Only this rank; default: all"));
}

TEST_F(CommandLineTest, WhatCannotBeUnderstoodIsUsage) {
  Expect("", 2, "ftctl up --workers 2");
  Expect("sumbit", 2, "ftctl has no sumbit; did you mean submit?");
  Expect("frobnicate", 2, "ftctl has no frobnicate\n");
  Expect("model imprt", 2, "did you mean import?");
  Expect("submit a.yaml --wacth", 2, "did you mean --watch?");
  Expect("get", 2, "job is required");
  Expect("list --limit 0", 2, "--limit");
  Expect("list --limit many", 2, "--limit");
  Expect("list -o xml", 2, "xml");
  Expect("up --workers 0", 2, "--workers");
  Expect("down --grace -1", 2, "--grace");
  Expect("chat hi", 2, "--job or --model");
  Expect("merge --out x", 2, "merge needs --job, or --model and --adapter");
  Expect("chat --job a --model b hi", 2, "--model");
  Expect("merge --model a --out x", 2, "--adapter");
  Expect("merge --job a --adapter b --out x", 2, "--job");
  Expect("merge --job a", 2, "--out is required");
  Expect("merge --job a --out x --dtype fp8", 2, "fp8");
  Expect("wait a --for SLEEPING", 2, "SLEEPING");
  Expect("logs a --rank -2", 2, "--rank");
  Expect("metrics a --after -1", 2, "--after");
  Expect("completion tcsh", 2, "tcsh");
  Expect("plan", 2, "job is required");
  Expect("plan a.yaml --device-memory 48Gib", 2, "unknown unit; use B, kB");
  Expect("plan a.yaml --device-memory -8GiB", 2, "write for example 24GiB");
  Expect("plan a.yaml --host-memory 0GiB", 2, "must be above 0");
  Expect("plan a.yaml --ranks 0", 2, "a whole number from 1 to 4096");
  Expect("plan a.yaml --longest -5", 2, "must be a number above 0");
  Expect("plan a.yaml --tokens-per-second nan", 2, "must be a number above 0");
  Expect("submit a.yaml --request_id a/b", 2, "1 to 64 characters");
  Expect("--address 192.0.2.1:7443 list", 2, "TLS");
  Expect("--address nowhere list", 2, "HOST:PORT");
  const ScopedEnv address("FTCTL_ADDRESS", "192.0.2.1:7443");
  Expect("list", 2, "TLS");
}

TEST_F(CommandLineTest, WithoutAServiceItIsSaidHowToStartOne) {
  for (const char* words :
       {"list", "get a", "watch a", "wait a", "events a", "logs a", "metrics a",
        "cancel a", "delete a", "fetch a", "workers", "chat --job a hi",
        "merge --job a --out x"}) {
    Expect(words, 7, "Start it with: ftctl up");
  }
}

TEST_F(CommandLineTest, ATokenThatCannotBeReadIsDenied) {
  const std::string file = home_ / "token";
  const std::string words =
      absl::StrCat("--address 127.0.0.1:9 --token_file ", file, " list");
  Expect(words, 5, "No such file");
  FT_ASSERT_OK(WriteFileAtomic(file, "ft_short\n", 0600));
  Expect(words, 5, "holds no whole token");
  FT_ASSERT_OK(WriteFileAtomic(file, MakeToken(), 0600));
  ASSERT_EQ(chmod(file.c_str(), 0644), 0);
  Expect(words, 5, "others may read it");
}

TEST_F(CommandLineTest, ABadJobFileIsTold) {
  const std::string file = home_ / "job.yaml";
  for (const char* verb : {"check", "submit"}) {
    Expect(absl::StrCat(verb, " ", file, ".gone"), 4, "No such file");
  }
  FT_ASSERT_OK(WriteFileAtomic(file, "schema: ft.v1\nprioritee: 5\n"));
  for (const char* verb : {"check", "submit"}) {
    const Said said = Run(absl::StrCat(verb, " ", file));
    EXPECT_EQ(said.code, 3);
    EXPECT_THAT(said.err,
                HasSubstr(absl::StrCat(file,
                                       ":2: prioritee: unknown field; did you "
                                       "mean \"priority\"?\n")));
    EXPECT_THAT(said.err, HasSubstr(absl::StrCat(file, ": name: is missing")));
  }
  EXPECT_THAT(Run(absl::StrCat("submit ", file)).err,
              HasSubstr("\n7 errors. Nothing was submitted.\n"));
  FT_ASSERT_OK(WriteFileAtomic(file, std::string(10 << 20, '#')));
  Expect(absl::StrCat("submit ", file), 3, "larger than 262144 bytes");
  Expect(absl::StrCat("check ", home_.path()), 3, "is a folder");
}

TEST_F(CommandLineTest, APlanNeedsAJobFileAndAConfigAlone) {
  const std::string source = FT_TEST_SOURCE_DIR;
  const std::string golden = source + "/tests/golden/plan/";
  const std::string qlora = absl::StrCat(
      "plan ", source, "/examples/plan/qlora_65b_48gib.yaml --model ", golden,
      "llama_65b --device-memory ");
  Said said = Run(qlora + "48GiB");
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_THAT(said.out, HasSubstr("qlora-65b: fits\n"));
  EXPECT_THAT(said.out, HasSubstr("this version cannot run it"));
  EXPECT_THAT(said.out, HasSubstr(":14: resources.gpus: is not supported yet"));

  said = Run(qlora + "32GiB -o json");
  EXPECT_EQ(said.code, 9) << said.err;
  const nlohmann::json plan = nlohmann::json::parse(said.out);
  EXPECT_EQ(plan["fits"], false);
  EXPECT_EQ(plan["model"]["parameters"], 65'285'660'672);
  EXPECT_EQ(plan["ledger"][0]["term"], "weights");
  EXPECT_EQ(plan["ledger"][0]["bytes"], 34'458'927'104);
  EXPECT_EQ(plan["peak"]["at"], "forward and backward of a block");
  EXPECT_TRUE(plan["proposal"]["changes"].is_object());
  EXPECT_EQ(plan["step_seconds"], nullptr);
  EXPECT_THAT(Run(qlora + "48GiB -o yaml").out, HasSubstr("fits: true\n"));
  EXPECT_EQ(Run(qlora + "48GiB -o name").out, "qlora-65b\n");

  // The model root of ftctl up is looked into, too.
  FT_ASSERT_OK(MakeDirs(home_ / "ft/models/llama-65b"));
  FT_ASSERT_OK_AND_ASSIGN(const std::string config,
                          ReadFile(golden + "llama_65b/config.json", 1 << 16));
  FT_ASSERT_OK(
      WriteFileAtomic(home_ / "ft/models/llama-65b/config.json", config));
  said = Run(absl::StrCat("plan ", source,
                          "/examples/plan/qlora_65b_48gib.yaml "
                          "--device-memory 24GiB --ranks 2"));
  EXPECT_EQ(said.code, 9) << said.err;
  EXPECT_THAT(said.out, HasSubstr("\nproposal: write\n"));
  EXPECT_THAT(said.out, HasSubstr("  parallelism.zero_stage: 3\n"));

  Expect(absl::StrCat("plan ", home_ / "gone.yaml"), 4, "No such file");
  Expect(absl::StrCat("plan ", source,
                      "/examples/plan/qlora_7b_8gib.yaml --model ",
                      home_ / "gone"),
         4, "name a config.json, or the folder of one");
  Expect(absl::StrCat("plan ", source, "/examples/plan/qlora_7b_8gib.yaml"), 3,
         "model.base: there is no model llama-2-7b");
}

TEST_F(CommandLineTest, ModelsAreListedWithoutAService) {
  EXPECT_EQ(Run("model ls -o name").out, "");
  EXPECT_THAT(Run("model ls").out, HasSubstr("MODEL"));
  Expect("model import x --name No/Name", 2, "use a-z");
  FT_ASSERT_OK(MakeDirs(home_ / "ft/models/there"));
  Expect("model import x --name there", 6, "is there already");
  // What is no model is told, and is not in the list.
  const Said said = Run("model ls -o name");
  EXPECT_EQ(said.out, "");
  EXPECT_THAT(said.err, HasSubstr("model there: "));
}

}  // namespace
}  // namespace ft
