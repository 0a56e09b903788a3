// SPDX-License-Identifier: Apache-2.0

#include "ctl/output.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "ft/v1/events.pb.h"
#include "jobspec/yaml_reader.h"
#include "tests/testing/scoped_env.h"

namespace ft {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::ScopedEnv;
using Rows = std::vector<std::vector<std::string>>;

template <typename Print>
std::string Printed(const Print& print) {
  ::testing::internal::CaptureStdout();
  print();
  std::fflush(stdout);
  return ::testing::internal::GetCapturedStdout();
}

// What a terminal gets.
template <typename Print>
std::string PrintedOnATerminal(const Print& print) {
  const UniqueFd master(posix_openpt(O_RDWR | O_NOCTTY));
  grantpt(master.get());
  unlockpt(master.get());
  std::fflush(stdout);
  const UniqueFd before(dup(STDOUT_FILENO));
  UniqueFd slave(open(ptsname(master.get()), O_RDWR | O_NOCTTY));
  dup2(slave.get(), STDOUT_FILENO);
  print();
  std::fflush(stdout);
  dup2(before.get(), STDOUT_FILENO);
  char buffer[4096];
  const ssize_t got = read(master.get(), buffer, sizeof(buffer));
  return std::string(buffer, got > 0 ? static_cast<size_t>(got) : 0);
}

TEST(TableTest, ColumnsAreAsWideAsTheirWidestCell) {
  const Rows rows = {{"job-1", "RUNNING", "3s"}, {"job-22", "OK", ""}};
  EXPECT_EQ(Printed([&] { PrintTable({}, {"JOB", "STATE", "AGE"}, rows); }),
            "JOB     STATE    AGE\n"
            "job-1   RUNNING  3s\n"
            "job-22  OK       \n");
  EXPECT_EQ(Printed([&] {
              PrintTable({.no_headers = true}, {"A LONG HEADER", "B", "C"},
                         rows);
            }),
            "job-1   RUNNING  3s\n"
            "job-22  OK       \n");
}

TEST(TableTest, ARowIsALineWhateverItsCellsHold) {
  const Rows rows = {{"1", "three\n  errors\nhere\n", "3s"},
                     {"2", "two\nof them", "\033[2Jx\ty"},
                     {"3", "\n", ""}};
  EXPECT_EQ(Printed([&] { PrintTable({}, {"A", "MESSAGE", "C"}, rows); }),
            "A  MESSAGE                   C\n"
            "1  three (and 2 more lines)  3s\n"
            "2  two (and 1 more line)      [2Jx y\n"
            "3                            \n");
}

TEST(FieldsTest, EveryLineOfAValueStandsBelowItsFirst) {
  EXPECT_EQ(Printed([] {
              PrintFields({{"job", "job-1"},
                           {"message", "a.json:1: bad\nb.json:2: bad\n"},
                           {"age", "3s"}});
            }),
            "job      job-1\n"
            "message  a.json:1: bad\n"
            "         b.json:2: bad\n"
            "age      3s\n");
}

TEST(TableTest, TheHeaderIsBoldOnATerminalUnlessNoColorIsSet) {
  const auto print = [] { PrintTable({}, {"JOB"}, {{"a"}}); };
  {
    const ScopedEnv unset("NO_COLOR", nullptr);
    EXPECT_THAT(PrintedOnATerminal(print), HasSubstr("\033[1mJOB\033[0m"));
    EXPECT_THAT(Printed(print), Not(HasSubstr("\033")));
  }
  {
    const ScopedEnv empty("NO_COLOR", "");
    EXPECT_THAT(PrintedOnATerminal(print), HasSubstr("\033[1m"));
  }
  const ScopedEnv set("NO_COLOR", "1");
  EXPECT_THAT(PrintedOnATerminal(print), Not(HasSubstr("\033")));
}

// What YAML reads back, as JSON of texts.
nlohmann::ordered_json Read(const YamlNode& node) {
  nlohmann::ordered_json value;
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return nullptr;
    case YamlNode::Kind::kScalar:
      return node.scalar;
    case YamlNode::Kind::kList:
      value = nlohmann::ordered_json::array();
      for (const YamlNode& item : node.items) value.push_back(Read(item));
      return value;
    case YamlNode::Kind::kMap:
      value = nlohmann::ordered_json::object();
      for (const auto& [key, child] : node.fields) value[key] = Read(child);
      return value;
  }
  return value;
}

TEST(YamlTest, ReadsBackAsItself) {
  const auto value = nlohmann::ordered_json::parse(R"({
    "plain": "text", "n": "a one-letter key", "no": "a word of YAML's",
    "a key: with # signs": "x", "": "empty", "1": "one",
    "list": ["yes", "1.5", "it's \"quoted\"\n", "ä", []],
    "nested": [[["deep"], "b"], {"c": "d", "e": {"f": "g"}}],
    "nothing": {}, "none": []})");
  Violations violations;
  const YamlNode node = ReadYaml(YamlOf(value), violations);
  EXPECT_TRUE(violations.empty()) << violations.Text("") << YamlOf(value);
  EXPECT_EQ(Read(node), value) << YamlOf(value);
}

TEST(MessageTest, JsonYamlAndStreams) {
  v1::LogLine line;
  line.set_rank(1);
  line.set_text("two\nlines");
  EXPECT_EQ(Printed([&] { PrintMessage({.output = "yaml"}, line); }),
            "rank: 1\ntext: \"two\\nlines\"\n");
  EXPECT_EQ(nlohmann::json::parse(
                Printed([&] { PrintMessage({.output = "json"}, line); })),
            (nlohmann::json{{"rank", 1}, {"text", "two\nlines"}}));
  // A program reads a stream line by line.
  EXPECT_EQ(Printed([&] {
              PrintStreamed({.output = "json"}, line);
              PrintStreamed({.output = "json"}, line);
            }),
            "{\"rank\":1,\"text\":\"two\\nlines\"}\n"
            "{\"rank\":1,\"text\":\"two\\nlines\"}\n");
  EXPECT_EQ(Printed([&] {
              PrintStreamed({.output = "yaml"}, line);
              PrintStreamed({.output = "yaml"}, line);
            }),
            "---\nrank: 1\ntext: \"two\\nlines\"\n"
            "---\nrank: 1\ntext: \"two\\nlines\"\n");
}

TEST(MessageTest, AFolderWhoseNameIsNoTextDoesNotStopAProgram) {
  const nlohmann::ordered_json value = {{"dir", "a\xff"}};
  EXPECT_EQ(Printed([&] { PrintValue({.output = "json"}, value); }),
            "{\n \"dir\": \"a\xEF\xBF\xBD\"\n}\n");
  EXPECT_EQ(Printed([&] { PrintValue({.output = "yaml"}, value); }),
            "dir: \"a\xEF\xBF\xBD\"\n");
}

TEST(WordsTest, StatesAndTimes) {
  EXPECT_EQ(StateName(v1::JOB_STATE_QUEUED), "QUEUED");
  EXPECT_EQ(CauseName(v1::ATTEMPT_CAUSE_RANK_SIGNAL), "RANK_SIGNAL");
  for (int i = 0; i <= v1::JobState_MAX; ++i) {
    const auto state = static_cast<v1::JobState>(i);
    EXPECT_EQ(IsTerminal(state), state == v1::JOB_STATE_SUCCEEDED ||
                                     state == v1::JOB_STATE_FAILED ||
                                     state == v1::JOB_STATE_CANCELLED);
  }
  EXPECT_EQ(DurationText(0.4), "0s");
  EXPECT_EQ(DurationText(59.6), "1m00s");
  EXPECT_EQ(DurationText(192), "3m12s");
  EXPECT_EQ(DurationText(7500), "2h05m");
  EXPECT_EQ(DurationText(90000), "1d01h");
  google::protobuf::Timestamp never, then;
  EXPECT_EQ(AgeOf(never), "");
  then.set_seconds(absl::ToUnixSeconds(absl::Now()) - 7200);
  EXPECT_EQ(AgeOf(then), "2h00m");
}

}  // namespace
}  // namespace ft
