// SPDX-License-Identifier: Apache-2.0
//
// Other projects' sample files, read as what they are, and refused as what they
// are not.

#include "common/file.h"
#include "data/json_reader.h"
#include "data/row_formats.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

std::string Sample(const std::string& name) {
  return FT_TEST_SOURCE_DIR "/tests/golden/data/" + name;
}

struct Samples {
  std::vector<std::string> conversations;  // "role: content|role: ..."
  std::vector<std::string> faults;
};

Samples ReadAs(RowFormat format, const std::string& name) {
  Samples samples;
  FT_EXPECT_OK(ReadJsonRows(
      Sample(name), name,
      [&](const RowPlace&, const Json& row) {
        const absl::StatusOr<Example> example = ExampleFromRow(format, row);
        if (!example.ok()) {
          samples.faults.emplace_back(example.status().message());
          return;
        }
        std::string text;
        for (const Json& message : example->messages) {
          text += message["role"].get<std::string>() + ":" +
                  message["content"].get<std::string>() + "|";
        }
        samples.conversations.push_back(text);
      },
      [&](BadRow bad) { samples.faults.push_back(bad.ToString()); }));
  return samples;
}

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(FormatSamplesTest, Alpaca) {
  EXPECT_THAT(ReadAs(RowFormat::kAlpaca, "swift_alpaca.jsonl").conversations,
              ElementsAre("system:system123|user:aaaaa|assistant:bbbbb|"
                          "user:11111\n22222|assistant:33333|",
                          "user:aaaaa|assistant:ccccc|",
                          "user:AAAAA\nBBBBB|assistant:CCCCC|"));
}

TEST(FormatSamplesTest, AlpacaAsLlamaFactoryConvertsIt) {
  const Json vectors =
      Json::parse(ReadFile(Sample("test_vectors.json"), 1 << 20).value());
  const Json& vector = vectors["convert_alpaca"];
  FT_ASSERT_OK_AND_ASSIGN(const Example example, FromAlpaca(vector["record"]));
  EXPECT_EQ(example.messages[0]["content"], vector["prompt"]);
  EXPECT_EQ(example.messages[1]["content"], vector["response"]);
}

TEST(FormatSamplesTest, Openai) {
  EXPECT_THAT(
      ReadAs(RowFormat::kOpenai, "swift_chatml.jsonl").conversations,
      ElementsAre("system:00000|user:11111|assistant:22222|",
                  "user:aaaaa|assistant:bbbbb|user:ccccc|assistant:ddddd|",
                  "user:AAAAA|assistant:BBBBB|user:CCCCC|assistant:DDDDD|"));
  const Samples turns = ReadAs(RowFormat::kOpenai, "xtuner_multi_turn_2.json");
  EXPECT_EQ(turns.conversations.size(), 2u);
  EXPECT_THAT(turns.conversations, Each(HasSubstr("user:How to study")));
}

TEST(FormatSamplesTest, Sharegpt) {
  EXPECT_THAT(
      ReadAs(RowFormat::kSharegpt, "swift_conversations.jsonl").conversations,
      ElementsAre("system:00000|user:11111|assistant:22222|",
                  "user:aaaaa|assistant:bbbbb|user:ccccc|assistant:ddddd|",
                  "user:AAAAA|assistant:BBBBB|user:CCCCC|assistant:DDDDD|"));
}

TEST(FormatSamplesTest, WhatAFileIsNotIsToldByItsKey) {
  const auto expect_refused = [](RowFormat format, const char* name,
                                 const char* key) {
    const Samples samples = ReadAs(format, name);
    EXPECT_THAT(samples.conversations, IsEmpty()) << name;
    EXPECT_FALSE(samples.faults.empty()) << name;
    EXPECT_THAT(samples.faults, Each(HasSubstr(key))) << name;
  };
  expect_refused(RowFormat::kAlpaca, "swift_chatml.jsonl", "instruction");
  expect_refused(RowFormat::kAlpaca, "swift_pre.jsonl", "instruction");
  expect_refused(RowFormat::kAlpaca, "swift_multi.json", "instruction");
  expect_refused(RowFormat::kAlpaca, "xtuner_pretrain.json", "instruction");
  expect_refused(RowFormat::kSharegpt, "swift_sharegpt.jsonl", "conversations");
  expect_refused(RowFormat::kOpenai, "swift_conversations.jsonl", "messages");
}

}  // namespace
}  // namespace ft
