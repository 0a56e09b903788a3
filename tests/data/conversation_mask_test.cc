// SPDX-License-Identifier: Apache-2.0
//
// What is learned of a conversation, with templates of several families on the
// small tokenizer, and against other projects' expected values.

#include "data/conversation_mask.h"

#include "common/file.h"
#include "data/row_formats.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::Fails;
using ::testing::HasSubstr;

std::string Golden(const std::string& name) {
  return ReadFile(FT_TEST_SOURCE_DIR "/tests/golden/" + name, 64 << 20).value();
}

const Json& Vectors() {
  static const Json vectors = Json::parse(Golden("data/test_vectors.json"));
  return vectors;
}

// On a small tokenizer, or SmolLM2's where texts need more than ASCII.
ModelText TextWith(
    const std::string& template_source, const std::string& bos = "",
    const char* tokenizer = "tokenizers/tiny_bpe_tokenizer.json") {
  return {.tokenizer = Tokenizer::Parse(Golden(tokenizer)).value(),
          .chat_template = ChatTemplate::Compile(template_source).value(),
          .special_tokens = {{"bos_token", bos}}};
}

std::string TemplateNamed(const std::string& name) {
  return Golden("text/templates/" + name + ".jinja");
}

ModelText TextOf(const std::string& name, const std::string& bos = "") {
  return TextWith(TemplateNamed(name), bos);
}

constexpr char kSmolLM2[] = "smollm2_tokenizer/tokenizer.json";

Example Conversation(const Json& messages) {
  Example example{.messages = messages};
  example.may_learn.assign(messages.size(), true);
  return example;
}

Example Conversation(const char* messages) {
  return Conversation(Json::parse(messages));
}

std::string Text(const TokenizedExample& example, const ModelText& text,
                 bool only_learned) {
  std::vector<int64_t> ids;
  for (size_t t = 0; t < example.ids.size(); ++t) {
    if (example.learned[t] || !only_learned) ids.push_back(example.ids[t]);
  }
  return text.tokenizer.Decode(ids, false).value();
}

std::string Learned(const TokenizedExample& example, const ModelText& text) {
  return Text(example, text, /*only_learned=*/true);
}

// The only example of a conversation.
std::string LearnedOf(const Example& example, const ModelText& text,
                      const MaskOptions& options = {}) {
  const auto examples = TokenizeConversation(example, text, options);
  if (!examples.ok()) return examples.status().ToString();
  return examples->size() == 1 ? Learned((*examples)[0], text) : "several";
}

constexpr char kTwoTurns[] = R"([{"role": "user", "content": "One?"},
    {"role": "assistant", "content": "First."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "Second."}])";

TEST(ConversationMaskTest, ChatmlTokensAndMaskEqualTorchtunes) {
  const Json& vector = Vectors()["tokenize_qwen2_tiny_bpe"];
  const ModelText text = TextOf("chatml");
  FT_ASSERT_OK_AND_ASSIGN(
      const auto examples,
      TokenizeConversation(Conversation(vector["messages"]), text, {}));
  ASSERT_EQ(examples.size(), 1u);
  auto expected = vector["tokens"].get<std::vector<int32_t>>();
  expected.push_back(94);  // The template's newline behind <|im_end|>.
  EXPECT_EQ(examples[0].ids, expected);
  // Torchtune learns "<|im_start|>assistant\n" too, five tokens.
  const size_t begin = vector["masked_prefix_len"].get<size_t>() + 5;
  for (size_t t = 0; t < expected.size(); ++t) {
    EXPECT_EQ(examples[0].learned[t], t >= begin && t + 1 < expected.size())
        << t;
  }
}

// SmolLM2's tokenizer with Llama 3's special tokens.
std::string TokenizerOfLlama3() {
  Json tokenizer = Json::parse(Golden(kSmolLM2));
  int64_t id = 49152;
  for (const char* token : {"<|begin_of_text|>", "<|start_header_id|>",
                            "<|end_header_id|>", "<|eot_id|>"}) {
    Json added = tokenizer["added_tokens"][0];
    added["id"] = id++;
    added["content"] = token;
    tokenizer["added_tokens"].push_back(added);
  }
  return tokenizer.dump();
}

TEST(ConversationMaskTest, IdsAndMasksOfEveryMarkedTemplateEqualTransformers) {
  const Json golden = Json::parse(Golden("text/templates.json"));
  ModelText text = TextWith("", "", kSmolLM2);
  int compared = 0, refused = 0;
  for (const auto& [name, expected] : golden["templates"].items()) {
    text.chat_template = ChatTemplate::Compile(TemplateNamed(name)).value();
    text.special_tokens.clear();
    for (const char* token : {"bos_token", "eos_token"}) {
      if (expected[token].is_string())
        text.special_tokens[token] = expected[token];
    }
    for (const auto& [key, want] : expected["renders"].items()) {
      if (!want.contains("smollm2_assistant_mask") || key.ends_with("+gen")) {
        continue;
      }
      SCOPED_TRACE(name + " " + key);
      const Json& conversation = golden["conversations"][key];
      Example example = Conversation(conversation["messages"]);
      if (conversation.contains("tools")) example.tools = conversation["tools"];
      // With the tail: the reference learns a whole span.
      const auto examples =
          TokenizeConversation(example, text, {.learn_tail = true});
      if (!examples.ok()) {
        // A template that leaves the tools out without a word.
        EXPECT_THAT(examples, Fails(absl::StatusCode::kInvalidArgument,
                                    "does not appear in the chat template"));
        ++refused;
        continue;
      }
      ASSERT_EQ(examples->size(), 1u);
      EXPECT_EQ((*examples)[0].ids,
                want["smollm2_ids"].get<std::vector<int32_t>>());
      std::vector<bool> mask;
      for (const Json& bit : want["smollm2_assistant_mask"]) {
        mask.push_back(bit.get<int>() == 1);
      }
      EXPECT_EQ((*examples)[0].learned, mask);
      ++compared;
    }
  }
  EXPECT_EQ(compared, 106);
  EXPECT_EQ(refused, 15);
}

TEST(ConversationMaskTest, Llama3TurnsAreThoseOfLlamaFactory) {
  const Json& vector = Vectors()["chat_template_llama3"];
  ModelText text = TextOf("llama3", "<|begin_of_text|>");
  text.tokenizer = Tokenizer::Parse(TokenizerOfLlama3()).value();
  const Example example = Conversation(vector["messages"]);
  FT_ASSERT_OK_AND_ASSIGN(const auto examples,
                          TokenizeConversation(example, text, {}));
  std::string whole, learned;
  for (const Json& pair : vector["multiturn_pairs"]) {
    whole += pair[0].get<std::string>() + pair[1].get<std::string>();
    learned += pair[1].get<std::string>();
  }
  ASSERT_EQ(examples.size(), 1u);
  EXPECT_EQ(Text(examples[0], text, false), whole);
  EXPECT_EQ(Learned(examples[0], text), learned);
  const std::string last =
      Vectors()["chat_template_llama3"]["oneturn"]["answer"];
  EXPECT_EQ(LearnedOf(example, text, {.train_on = TrainOn::kLast}), last);
}

TEST(ConversationMaskTest, RewrittenHistoryIsSplitAndKeepsItsReasoning) {
  const Json& vector = Vectors()["chat_template_qwen3_oneturn"]["cases"][0];
  const ModelText text = TextWith(TemplateNamed("qwen3"), "", kSmolLM2);
  const Example example = Conversation(vector["messages"]);
  FT_ASSERT_OK_AND_ASSIGN(const auto split,
                          TokenizeConversation(example, text, {}));
  ASSERT_EQ(split.size(), 2u);
  EXPECT_EQ(Learned(split[0], text),
            "<think>\nModel thought here\n</think>\n\nI am fine!<|im_end|>");
  EXPECT_EQ(Text(split[1], text, false),
            vector["prompt"].get<std::string>() +
                vector["answer"].get<std::string>());
  EXPECT_EQ(Learned(split[1], text) + "\n",
            vector["answer"].get<std::string>());

  EXPECT_EQ(
      LearnedOf(example, text, {.history_rewrite = HistoryRewrite::kLast}) +
          "\n",
      vector["answer"].get<std::string>());
  EXPECT_THAT(TokenizeConversation(example, text,
                                   {.history_rewrite = HistoryRewrite::kError}),
              Fails(absl::StatusCode::kInvalidArgument, "history_rewrite"));
}

TEST(ConversationMaskTest, OneTurnIsNeverSplit) {
  const ModelText text = TextOf("qwen3");
  EXPECT_EQ(LearnedOf(Conversation(R"([{"role": "user", "content": "q"},
                {"role": "assistant", "content": "<think>\nt\n</think>\n\na"}])"),
                      text, {.history_rewrite = HistoryRewrite::kError}),
            "<think>\nt\n</think>\n\na<|im_end|>");
}

TEST(ConversationMaskTest, MarkedSpansAndPrefixDifferenceAgree) {
  // The training templates differ from their twins by the marks alone.
  for (const char* name : {"llama3", "phi3", "phi3_5", "gemma"}) {
    SCOPED_TRACE(name);
    const ModelText plain = TextOf(name, "<s>");
    const ModelText marked = TextOf(std::string(name) + "_training", "<s>");
    for (const TrainOn train_on : {TrainOn::kAll, TrainOn::kLast}) {
      const MaskOptions options{.train_on = train_on};
      const Example example = Conversation(kTwoTurns);
      const std::string learned = LearnedOf(example, plain, options);
      EXPECT_THAT(learned, HasSubstr("Second."));
      EXPECT_EQ(learned.find("First.") == std::string::npos,
                train_on == TrainOn::kLast);
      EXPECT_EQ(LearnedOf(example, marked, options), learned);
    }
  }
}

TEST(ConversationMaskTest, WeightZeroMasksATurnWithAndWithoutMarks) {
  Example example = Conversation(kTwoTurns);
  example.may_learn[1] = false;
  EXPECT_EQ(LearnedOf(example, TextOf("qwen2_5")), "Second.<|im_end|>");
  EXPECT_EQ(LearnedOf(example, TextOf("llama3_training")),
            LearnedOf(example, TextOf("llama3")));
}

TEST(ConversationMaskTest, ATemplateMayMarkATurnInParts) {
  const ModelText text = TextWith(
      "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}"
      "{% generation %}A{% endgeneration %}-{% generation %}{{ m.content }}"
      "{% endgeneration %}{% else %}{{ m.content }}{% endif %};{% endfor %}");
  const Example example = Conversation(kTwoTurns);
  EXPECT_EQ(LearnedOf(example, text), "AFirst.ASecond.");
  EXPECT_EQ(LearnedOf(example, text, {.train_on = TrainOn::kLast}), "ASecond.");
}

TEST(ConversationMaskTest, PromptTooLearnsEverything) {
  Example example = Conversation(kTwoTurns);
  example.may_learn[1] = false;
  for (const char* name : {"qwen2_5", "qwen2_5_training"}) {
    const ModelText text = TextOf(name);
    const auto examples =
        TokenizeConversation(example, text, {.train_on = TrainOn::kPromptToo})
            .value();
    EXPECT_EQ(Learned(examples[0], text) + "\n",
              Text(examples[0], text, false));
  }
}

TEST(ConversationMaskTest, TheTailBehindTheEndTokenIsLearnedOnRequest) {
  EXPECT_EQ(LearnedOf(Conversation(kTwoTurns), TextOf("chatml"),
                      {.learn_tail = true}),
            "First.<|im_end|>\nSecond.<|im_end|>\n");
}

TEST(ConversationMaskTest, APromptThatIsNoPrefixIsRefused) {
  const ModelText text = TextWith(
      "{% for m in messages %}{{ m.content }}{% endfor %}"
      "{% if add_generation_prompt %}<think>{% endif %}");
  EXPECT_THAT(TokenizeConversation(Conversation(kTwoTurns), text, {}),
              Fails(absl::StatusCode::kInvalidArgument,
                    "messages[1]: the template's generation prompt"));
}

TEST(ConversationMaskTest, WhatTheTemplateRefusesIsBad) {
  const ModelText text = TextWith("{{ raise_exception('never') }}");
  EXPECT_THAT(TokenizeConversation(Conversation(kTwoTurns), text, {}),
              Fails(absl::StatusCode::kInvalidArgument, "never"));
}

Example ToolConversation() {
  const Json& vector = Vectors()["tool_format"];
  Json row = Json::parse(R"({"conversations": [
      {"from": "human", "value": "q"}, {"from": "function_call"},
      {"from": "observation", "value": "r"}, {"from": "gpt", "value": "a"}]})");
  row["tools"] = vector["tools"].dump();
  row["conversations"][1]["value"] =
      Json::array({vector["call"], vector["call"]}).dump();
  return FromSharegpt(row).value();
}

TEST(ConversationMaskTest, ToolsAndCallsAreWrittenByTheTemplate) {
  const Json& vector = Vectors()["tool_format"];
  const ModelText text = TextOf("qwen2_5");
  Example example = ToolConversation();
  example.tools[0]["function"]["name"] = "tool_name";
  FT_ASSERT_OK_AND_ASSIGN(const RenderedChat chat,
                          RenderMessages(example, 4, false, text));
  std::string system = vector["qwen_system_text"];
  system.replace(system.find("test_tool"), 9, "tool_name");
  EXPECT_THAT(chat.text, HasSubstr(system));
  EXPECT_THAT(chat.text, HasSubstr(vector["call_qwen_x2"].get<std::string>()));
  EXPECT_EQ(
      LearnedOf(example, text),
      vector["call_qwen_x2"].get<std::string>() + "<|im_end|>a<|im_end|>");
}

TEST(ConversationMaskTest, ATemplateThatDropsToolsIsRefused) {
  EXPECT_THAT(
      TokenizeConversation(ToolConversation(), TextOf("chatml"), {}),
      Fails(absl::StatusCode::kInvalidArgument, "test_tool does not appear"));
  Example example = ToolConversation();
  example.tools = Json();
  EXPECT_THAT(
      TokenizeConversation(example, TextOf("chatml"), {}),
      Fails(absl::StatusCode::kInvalidArgument, "call of tool_name does not"));
}

}  // namespace
}  // namespace ft
