// SPDX-License-Identifier: Apache-2.0
//
// Rows of each format become the conversation they mean; a bad row is named by
// its key.

#include "data/row_formats.h"

#include "data/json_rows.h"
#include "data/variables.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::Fails;

Json Row(const char* text) { return Json::parse(text); }

TEST(AlpacaTest, QuestionIsInstructionAndInputWithHistoryBefore) {
  FT_ASSERT_OK_AND_ASSIGN(
      const Example example,
      FromAlpaca(Row(R"({"system": "s", "instruction": "i", "input": "x",
        "output": "o", "history": [["a", "b"]]})")));
  EXPECT_EQ(example.messages.dump(),
            R"([{"role":"system","content":"s"},{"role":"user","content":"a"},)"
            R"({"role":"assistant","content":"b"},)"
            R"({"role":"user","content":"i\nx"},)"
            R"({"role":"assistant","content":"o"}])");
  EXPECT_EQ(FromAlpaca(Row(R"({"input": "x", "output": "o"})"))
                ->messages[0]["content"],
            "x");
}

TEST(AlpacaTest, BadRowsNameTheirKey) {
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(FromAlpaca(Row(R"({"output": "o"})")),
              Fails(code, "instruction"));
  EXPECT_THAT(FromAlpaca(Row(R"({"instruction": "i"})")),
              Fails(code, "output"));
  EXPECT_THAT(FromAlpaca(Row(R"({"instruction": 7, "output": "o"})")),
              Fails(code, "instruction: must be a string"));
  EXPECT_THAT(FromAlpaca(Row(R"({"instruction": "i", "output": "o",
                                 "history": [["a"]]})")),
              Fails(code, "history"));
  EXPECT_THAT(ExampleFromRow(RowFormat::kAlpaca, Row("[1]")),
              Fails(code, "no JSON object"));
}

TEST(SharegptTest, ToolsAndCallsKeepTheirStructure) {
  FT_ASSERT_OK_AND_ASSIGN(
      const Example example,
      FromSharegpt(Row(R"({"tools": "[{\"name\": \"f\"}]", "conversations": [
        {"from": "human", "value": "q"},
        {"from": "function_call",
         "value": "{\"name\": \"f\", \"arguments\": {\"a\": 1}}"},
        {"from": "observation", "value": "r"}, {"from": "gpt", "value": "a"}]})")));
  EXPECT_EQ(example.tools[0]["function"]["name"], "f");
  EXPECT_EQ(example.messages[1]["tool_calls"][0]["function"]["arguments"]["a"],
            1);
  EXPECT_EQ(example.messages[2]["role"], "tool");
}

TEST(SharegptTest, ATurnOutOfOrderIsBad) {
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(FromSharegpt(Row(R"({"conversations": [
                {"from": "gpt", "value": "a"}]})")),
              Fails(code, "conversations[0]"));
  EXPECT_THAT(FromSharegpt(Row(R"({"conversations": [
                {"from": "human", "value": "a"},
                {"from": "human", "value": "b"}]})")),
              Fails(code, "conversations[1]"));
  EXPECT_THAT(FromSharegpt(Row(R"({"conversations": [
                {"from": "human", "value": "a"}]})")),
              Fails(code, "last turn"));
  EXPECT_THAT(FromSharegpt(Row(R"({"conversations": []})")),
              Fails(code, "conversations"));
}

TEST(OpenaiTest, WeightZeroIsNotLearned) {
  FT_ASSERT_OK_AND_ASSIGN(
      const Example example,
      FromOpenai(Row(R"({"messages": [{"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "loss_weight": 0},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "b"}]})")));
  EXPECT_EQ(example.may_learn, (std::vector<bool>{true, false, true, true}));
  EXPECT_FALSE(example.messages[1].contains("loss_weight"));
}

TEST(OpenaiTest, BadRowsNameTheirKey) {
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(FromOpenai(Row(R"({"messages": [{"role": "bot"}]})")),
              Fails(code, "bot"));
  EXPECT_THAT(FromOpenai(Row(R"({"messages": [{"role": "user"}]})")),
              Fails(code, "messages[0].content"));
  EXPECT_THAT(
      FromOpenai(Row(R"({"messages": [{"role": "user", "content": "a"}]})")),
      Fails(code, "assistant"));
}

TEST(VariablesTest, FilledOnesAreReplacedAndOthersAreTold) {
  Example example;
  example.messages = Row(R"([{"role": "user",
      "content": "I am {{name}} by {{author}}; {{ x }} {{}} {{name}}"}])");
  EXPECT_EQ(FillVariables({{"name", "Ada {{author}}"}}, example),
            std::set<std::string>{"author"});
  EXPECT_EQ(example.messages[0]["content"],
            "I am Ada {{author}} by {{author}}; {{ x }} {{}} Ada {{author}}");
}

class JsonRowsTest : public ::testing::Test {
 protected:
  void Read(const std::string& text) {
    rows_.clear();
    bad_.clear();
    FT_ASSERT_OK(WriteFileAtomic(dir_ / "d.json", text));
    FT_ASSERT_OK(ReadJsonRows(
        dir_ / "d.json",
        [this](int64_t row, const Json&) {
          rows_.push_back(row);
          return absl::OkStatus();
        },
        [this](BadRow bad) { bad_.push_back(bad.ToString()); }));
  }
  testing::TestDir dir_;
  std::vector<int64_t> rows_;
  std::vector<std::string> bad_;
};

TEST_F(JsonRowsTest, ArraysAndLinesAreToldApart) {
  Read(" [1, 2,\n3]");
  EXPECT_EQ(rows_, (std::vector<int64_t>{1, 2, 3}));
  Read("{}\n\n{\"a\": 1}\n");
  EXPECT_EQ(rows_, (std::vector<int64_t>{1, 3}));
}

TEST_F(JsonRowsTest, FaultsAreToldWithTheirPlaceAndOtherRowsAreRead) {
  Read("{}\n{\"a\": }\n{}\n");
  EXPECT_EQ(rows_, (std::vector<int64_t>{1, 3}));
  ASSERT_EQ(bad_.size(), 1u);
  EXPECT_THAT(bad_[0], ::testing::HasSubstr("d.json: row 2: line 1, column 7"));
  Read("[\n{\"a\": 1},\n{\"b\"}]");
  ASSERT_EQ(bad_.size(), 1u);
  EXPECT_THAT(bad_[0], ::testing::HasSubstr("d.json: line 3"));
  Read("{\"a\": \"\xFF\"}\n");
  EXPECT_EQ(bad_.size(), 1u);
}

TEST_F(JsonRowsTest, NestingIsBounded) {
  Read("{\"a\": " + std::string(100, '[') + std::string(100, ']') + "}\n");
  ASSERT_EQ(bad_.size(), 1u);
  EXPECT_THAT(bad_[0], ::testing::HasSubstr("deeper than 64"));
}

}  // namespace
}  // namespace ft
