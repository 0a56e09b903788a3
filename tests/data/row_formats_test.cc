// SPDX-License-Identifier: Apache-2.0
//
// Rows of each format become the conversation they mean; a bad row is named by
// its key.

#include "data/row_formats.h"

#include "data/variables.h"
#include "tests/testing/status_matchers.h"

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
  EXPECT_THAT(FromSharegpt(Row(R"({"conversations": [
                {"from": "system", "value": "s"}]})")),
              Fails(code, "last turn"));
  EXPECT_THAT(FromSharegpt(Row(R"({"conversations": [
                {"from": "bot", "value": "a"}]})")),
              Fails(code, "conversations[0]: from"));
  EXPECT_THAT(FromSharegpt(Row(R"({"conversations": [7]})")),
              Fails(code, "conversations[0]: from"));
}

TEST(SharegptTest, CallsMayBeParallelAndMustBeCalls) {
  const auto row = [](const std::string& call) {
    Json turns = Json::parse(R"([{"from": "human", "value": "q"}])");
    turns.push_back(Json::object({{"from", "function_call"}, {"value", call}}));
    return Json::object({{"conversations", turns}});
  };
  FT_ASSERT_OK_AND_ASSIGN(const Example example,
                          FromSharegpt(row(R"([{"name": "f", "arguments": {}},
                           {"name": "g", "arguments": "{\"a\": 1}"}])")));
  ASSERT_EQ(example.messages[1]["tool_calls"].size(), 2u);
  EXPECT_EQ(example.messages[1]["tool_calls"][1].dump(),
            R"({"type":"function","function":{"name":"g","arguments":)"
            R"({"a":1}}})");
  const auto code = absl::StatusCode::kInvalidArgument;
  for (const char* call : {"", "no JSON", "[]", "7", R"({"name": "f"})",
                           R"([{"arguments": {}}])"}) {
    EXPECT_THAT(FromSharegpt(row(call)),
                Fails(code, "conversations[1]: value: a call must be"))
        << call;
  }
}

TEST(SharegptTest, ToolsMustBeNamedFunctions) {
  const auto code = absl::StatusCode::kInvalidArgument;
  for (const char* tools :
       {R"("no JSON")", "7", "[7]", R"([{"description": "d"}])",
        R"([{"type": "function", "function": {}}])"}) {
    EXPECT_THAT(FromSharegpt(Json::object(
                    {{"tools", Json::parse(tools)},
                     {"conversations", Row(R"([{"from": "human", "value": "q"},
                              {"from": "gpt", "value": "a"}])")}})),
                Fails(code, "tools"))
        << tools;
  }
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

TEST(OpenaiTest, TypedPartsBecomeTextReasoningAndCalls) {
  FT_ASSERT_OK_AND_ASSIGN(
      const Example example,
      FromOpenai(Row(R"({"tools": "[{\"name\": \"f\"}]", "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"},
                                     {"type": "text", "value": "b"}]},
        {"role": "assistant", "content": [
          {"type": "reasoning", "value": "hm"},
          {"type": "tool_call",
           "value": "{\"name\": \"f\", \"arguments\": {}}"}]},
        {"role": "observation", "content": "r"},
        {"role": "assistant", "content": "done"}]})")));
  EXPECT_EQ(example.messages[0]["content"], "ab");
  EXPECT_EQ(example.messages[1].dump(),
            R"({"role":"assistant","content":"","reasoning_content":"hm",)"
            R"("tool_calls":[{"type":"function","function":{"name":"f",)"
            R"("arguments":{}}}]})");
  EXPECT_EQ(example.messages[2]["role"], "tool");
}

TEST(OpenaiTest, CallsAsTheApiWritesThemBecomeStructures) {
  FT_ASSERT_OK_AND_ASSIGN(const Example example,
                          FromOpenai(Row(R"({"messages": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": null, "tool_calls": [
          {"id": "1", "type": "function",
           "function": {"name": "f", "arguments": "{\"a\": [1]}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "r"},
        {"role": "assistant", "content": "a", "tool_calls": null}]})")));
  EXPECT_EQ(example.messages[1]["content"], "");
  EXPECT_EQ(example.messages[1]["tool_calls"][0]["function"]["arguments"]["a"],
            Row("[1]"));
  EXPECT_EQ(example.messages[2]["tool_call_id"], "1");
  EXPECT_FALSE(example.messages[3].contains("tool_calls"));
}

TEST(OpenaiTest, BadRowsNameTheirKey) {
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(FromOpenai(Row(R"({"messages": [{"role": "bot"}]})")),
              Fails(code, "bot"));
  const std::vector<std::pair<const char*, const char*>> faults = {
      {"7", "messages[0]: must be an object"},
      {R"({"role": 7})", "messages[0]: role: must be a string"},
      {R"({"role": "user"})", "messages[0]: content: missing"},
      {R"({"role": "user", "content": 7})", "messages[0]: content: must be"},
      {R"({"role": "user", "content": [7]})", "messages[0]: content: a part"},
      {R"({"role": "user", "content": [{"type": "image", "value": "x"}]})",
       "messages[0]: content: a part must be"},
      {R"({"role": "assistant", "content": ""})", "the answer is empty"},
      {R"({"role": "assistant", "content": "a", "loss_weight": 0.5})",
       "loss_weight: must be 0 or 1"},
      {R"({"role": "assistant", "tool_calls": [7]})", "tool_calls: a call"},
      {R"({"role": "user", "content": "a", "tool_calls":
           [{"name": "f", "arguments": {}}]})",
       "tool_calls: only an assistant"},
      {R"({"role": "tool", "content": "a"})", "there is none before"}};
  for (const auto& [message, reason] : faults) {
    EXPECT_THAT(
        FromOpenai(Json::object({{"messages", Json::array({Row(message)})}})),
        Fails(code, reason))
        << message;
  }
  EXPECT_THAT(FromOpenai(Row(R"({"messages": [], "text": 1})")),
              Fails(code, "messages"));
  EXPECT_THAT(
      FromOpenai(Row(R"({"messages": [{"role": "user", "content": "a"}]})")),
      Fails(code, "assistant"));
}

TEST(VariablesTest, CallsAreFilledToo) {
  Example example;
  example.messages = Row(R"([{"role": "assistant", "content": "{{{a}}",
      "tool_calls": [{"function": {"arguments": {"x": ["{{a}}", 7]}}}]}])");
  EXPECT_TRUE(FillVariables({{"a", "1"}}, example).empty());
  EXPECT_EQ(example.messages[0]["content"], "{1");
  EXPECT_EQ(example.messages[0]["tool_calls"][0]["function"]["arguments"]["x"],
            Row(R"(["1", 7])"));
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

TEST(RowFormatsTest, TextsThatHoldJsonAreBoundedInDepth) {
  const auto code = absl::StatusCode::kInvalidArgument;
  const std::string deep =
      std::string(100'000, '[') + std::string(100'000, ']');
  Json row = Row(R"({"conversations": [{"from": "human", "value": "a"},
                                       {"from": "gpt", "value": "b"}]})");
  row["tools"] = deep;
  EXPECT_THAT(FromSharegpt(row), Fails(code, "tools: must be a JSON list"));
  row.erase("tools");
  row["conversations"][1] = {{"from", "function_call"}, {"value", deep}};
  EXPECT_THAT(FromSharegpt(row), Fails(code, "a call must be"));

  Json openai = Row(R"({"messages": [{"role": "user", "content": "a"},
                                     {"role": "assistant"}]})");
  openai["messages"][1]["content"] = {{{"type", "tool_call"}, {"value", deep}}};
  EXPECT_THAT(FromOpenai(openai), Fails(code, "a call must be"));
}

}  // namespace
}  // namespace ft
