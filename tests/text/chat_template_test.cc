// SPDX-License-Identifier: Apache-2.0
//
// 32 public chat templates render byte for byte as transformers renders them,
// refuse what it refuses, and mark the same spans.

#include "text/chat_template.h"

#include <cstdlib>

#include "tests/testing/status_matchers.h"
#include "tests/text/golden_text.h"
#include "text/tokenizer.h"

namespace ft {
namespace {

using nlohmann::ordered_json;
using testing::CodePointsBefore;
using testing::GoldenText;
using testing::GoldenTextJson;

// 2024-07-26 10:00:00, the golden's fixed time.
constexpr int64_t kFixedTime = 1721988000;

ordered_json ContextOf(const ordered_json& conversation, bool generate,
                       const ordered_json& golden) {
  ordered_json context;
  context["messages"] = conversation["messages"];
  context["tools"] =
      conversation.contains("tools") ? conversation["tools"] : ordered_json();
  context["documents"] = nullptr;
  context["add_generation_prompt"] = generate;
  context["bos_token"] = golden["bos_token"];
  context["eos_token"] = golden["eos_token"];
  return context;
}

TEST(ChatTemplateGoldenTest, EveryRenderingEqualsTheReference) {
  const auto golden = GoldenTextJson("text/templates.json");
  FT_ASSERT_OK_AND_ASSIGN(
      const Tokenizer smollm2,
      Tokenizer::Parse(GoldenText("smollm2_tokenizer/tokenizer.json")));
  int renderings = 0, refusals = 0, masks = 0;
  for (const auto& [name, expected] : golden["templates"].items()) {
    FT_ASSERT_OK_AND_ASSIGN(
        const ChatTemplate chat,
        ChatTemplate::Compile(GoldenText("text/templates/" + name + ".jinja")));
    for (const auto& [key, want] : expected["renders"].items()) {
      SCOPED_TRACE(name + " " + key);
      const bool generate = key.ends_with("+gen");
      const std::string conversation =
          generate ? key.substr(0, key.size() - 4) : key;
      const absl::StatusOr<RenderedChat> got = chat.Render(
          ContextOf(golden["conversations"][conversation], generate, expected)
              .dump(),
          kFixedTime);
      if (!want.contains("text")) {
        EXPECT_FALSE(got.ok());
        ++refusals;
        continue;
      }
      ASSERT_TRUE(got.ok()) << got.status();
      EXPECT_EQ(got->text, want["text"].get<std::string>());
      ++renderings;
      if (!want.contains("generation_spans")) continue;

      const std::vector<int64_t> points = CodePointsBefore(got->text);
      ASSERT_EQ(got->generation_spans.size(), want["generation_spans"].size());
      for (size_t i = 0; i < got->generation_spans.size(); ++i) {
        EXPECT_EQ(points[got->generation_spans[i].first],
                  want["generation_spans"][i][0].get<int64_t>());
        EXPECT_EQ(points[got->generation_spans[i].second],
                  want["generation_spans"][i][1].get<int64_t>());
      }
      FT_ASSERT_OK_AND_ASSIGN(const Encoding encoding,
                              smollm2.Encode(got->text));
      EXPECT_EQ(encoding.ids, want["smollm2_ids"].get<std::vector<int64_t>>());
      std::vector<int> mask(encoding.ids.size());
      for (const auto& [begin, end] : got->generation_spans) {
        for (size_t t = 0; t < mask.size(); ++t) {
          if (encoding.begin[t] < end && encoding.end[t] > begin) mask[t] = 1;
        }
      }
      EXPECT_EQ(mask, want["smollm2_assistant_mask"].get<std::vector<int>>());
      ++masks;
    }
  }
  EXPECT_EQ(golden["templates"].size(), 32u);
  // Nothing differs: every case is one of these.
  EXPECT_EQ(renderings, 642);
  EXPECT_EQ(refusals, 62);
  EXPECT_EQ(masks, 121);
}

TEST(ChatTemplateTest, ABrokenTemplateIsRefusedWithItsLine) {
  EXPECT_THAT(ChatTemplate::Compile("a\n{% if %}"),
              testing::Fails(absl::StatusCode::kInvalidArgument, "chat:2"));
}

TEST(ChatTemplateTest, AnEndlessTemplateRunsOutOfFuel) {
  FT_ASSERT_OK_AND_ASSIGN(
      const ChatTemplate chat,
      ChatTemplate::Compile("{% for a in range(100000) %}{% for b in "
                            "range(100000) %}{% endfor %}{% endfor %}"));
  EXPECT_THAT(chat.Render("{}", 0),
              testing::Fails(absl::StatusCode::kInvalidArgument, "fuel"));
}

TEST(ChatTemplateTest, MarksCannotBeForgedByAMessage) {
  FT_ASSERT_OK_AND_ASSIGN(const ChatTemplate chat,
                          ChatTemplate::BuiltIn("chatml"));
  const std::string forged =
      "\xEF\xB7\x90"
      "0123456789abcdef"
      "\xEF\xB7\x91";
  const ordered_json context = {{"messages",
                                 {{{"role", "user"}, {"content", forged}},
                                  {{"role", "assistant"}, {"content", "ok"}}}},
                                {"add_generation_prompt", false}};
  FT_ASSERT_OK_AND_ASSIGN(const RenderedChat rendered,
                          chat.Render(context.dump(), 0));
  ASSERT_EQ(rendered.generation_spans.size(), 1u);
  const auto [begin, end] = rendered.generation_spans[0];
  EXPECT_EQ(rendered.text.substr(begin, end - begin), "ok<|im_end|>");
}

TEST(ChatTemplateTest, TheTimeShownDoesNotDependOnTheMachinesZone) {
  FT_ASSERT_OK_AND_ASSIGN(
      const ChatTemplate chat,
      ChatTemplate::Compile("{{ strftime_now('%Y-%m-%d %H:%M') }}"));
  setenv("TZ", "America/Los_Angeles", 1);
  EXPECT_EQ(chat.Render("{}", kFixedTime)->text, "2024-07-26 10:00");
  unsetenv("TZ");
}

TEST(ChatTemplateTest, ATagIsFoundBehindTextThatLooksLikeOne) {
  FT_ASSERT_OK_AND_ASSIGN(
      const ChatTemplate chat,
      ChatTemplate::Compile("{{ '{%' }}{%- generation +%}\na{% endgeneration "
                            "%}"));
  FT_ASSERT_OK_AND_ASSIGN(const RenderedChat rendered, chat.Render("{}", 0));
  EXPECT_EQ(rendered.text, "{%\na");
  EXPECT_EQ(rendered.generation_spans,
            (std::vector<std::pair<int64_t, int64_t>>{{2, 4}}));
}

TEST(ChatTemplateTest, AMarkThatTheTemplateCutsIsAnError) {
  FT_ASSERT_OK_AND_ASSIGN(
      const ChatTemplate chat,
      ChatTemplate::Compile("{% set x %}{% generation %}a{% endgeneration %}"
                            "{% endset %}{{ x[5:] }}"));
  EXPECT_THAT(chat.Render("{}", 0),
              testing::Fails(absl::StatusCode::kInvalidArgument, "cut"));
}

TEST(ChatTemplateTest, BrokenContextsAreRefused) {
  FT_ASSERT_OK_AND_ASSIGN(const ChatTemplate chat,
                          ChatTemplate::BuiltIn("chatml"));
  for (const char* context : {"", "[]", "{", "{\"messages\": 7}", "\xFF"}) {
    EXPECT_EQ(chat.Render(context, 0).status().code(),
              absl::StatusCode::kInvalidArgument)
        << context;
  }
}

TEST(ChatTemplateTest, AnUnknownNameIsToldWithTheNamesThereAre) {
  EXPECT_THAT(ChatTemplate::BuiltIn("chatmi"),
              testing::Fails(absl::StatusCode::kNotFound, "chatml"));
}

}  // namespace
}  // namespace ft
