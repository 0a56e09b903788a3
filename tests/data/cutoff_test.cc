// SPDX-License-Identifier: Apache-2.0
//
// Too long conversations: what goes first, what stays, and that a row which is
// split is cut turn by turn.

#include "data/cutoff.h"

#include "common/file.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::Fails;
using ::testing::HasSubstr;
using ::testing::Not;

class CutoffTest : public ::testing::Test {
 protected:
  static std::string Golden(const std::string& name) {
    return ReadFile(FT_TEST_SOURCE_DIR "/tests/golden/" + name, 4 << 20)
        .value();
  }
  void UseTemplate(const std::string& name) {
    text_.chat_template =
        ChatTemplate::Compile(Golden("text/templates/" + name + ".jinja"))
            .value();
  }
  static Example Conversation(const Json& messages) {
    Example example{.messages = messages};
    example.may_learn.assign(messages.size(), true);
    return example;
  }
  absl::StatusOr<FittedExamples> Fit(const Example& example, int64_t length) {
    return TokenizeWithin({.cutoff_len = length, .over_cutoff = over_cutoff_},
                          example, text_, {});
  }
  std::string Whole(const TokenizedExample& example) {
    return text_.tokenizer
        .Decode({example.ids.begin(), example.ids.end()}, false)
        .value();
  }
  static std::string Words(const std::string& word, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += word + std::to_string(i) + " ";
    return text;
  }

  ModelText text_{.tokenizer = Tokenizer::Parse(
                                   Golden("tokenizers/tiny_bpe_tokenizer.json"))
                                   .value(),
                  .chat_template = ChatTemplate::BuiltIn("chatml").value()};
  OverCutoff over_cutoff_ = OverCutoff::kTruncate;
};

TEST_F(CutoffTest, SystemAndTheLastTurnStay) {
  const Example example = Conversation(Json::parse(R"([
      {"role": "system", "content": "S."}, {"role": "user", "content": "One?"},
      {"role": "assistant", "content": "First."},
      {"role": "user", "content": "Two?"},
      {"role": "assistant", "content": "Second."},
      {"role": "user", "content": "Three?"},
      {"role": "assistant", "content": "Third."}])"));
  FT_ASSERT_OK_AND_ASSIGN(const FittedExamples whole, Fit(example, 1000));
  EXPECT_FALSE(whole.was_too_long);
  const int64_t size = whole.examples[0].size();
  FT_ASSERT_OK_AND_ASSIGN(const FittedExamples exact, Fit(example, size));
  EXPECT_FALSE(exact.was_too_long);

  FT_ASSERT_OK_AND_ASSIGN(const FittedExamples cut, Fit(example, size - 1));
  EXPECT_TRUE(cut.was_too_long);
  ASSERT_EQ(cut.examples.size(), 1u);
  EXPECT_THAT(Whole(cut.examples[0]), Not(HasSubstr("First.")));
  EXPECT_THAT(Whole(cut.examples[0]), HasSubstr("Second."));
  FT_ASSERT_OK_AND_ASSIGN(const FittedExamples last,
                          Fit(example, cut.examples[0].size() - 1));
  EXPECT_THAT(Whole(last.examples[0]), HasSubstr("S.<|im_end|>"));
  EXPECT_THAT(Whole(last.examples[0]), Not(HasSubstr("Two?")));
  EXPECT_THAT(Whole(last.examples[0]), HasSubstr("Three?"));
}

TEST_F(CutoffTest, TheHeadOfTheLastQuestionGoesAndCharactersStayWhole) {
  text_.tokenizer =
      Tokenizer::Parse(Golden("smollm2_tokenizer/tokenizer.json")).value();
  std::string question;
  for (int i = 0; i < 200; ++i) question += "\xE4\xBD\xA0";
  const Example example = Conversation(Json::array(
      {Json::object({{"role", "user"}, {"content", question + "end"}}),
       Json::object({{"role", "assistant"}, {"content", "Yes."}})}));
  FT_ASSERT_OK_AND_ASSIGN(const FittedExamples cut, Fit(example, 60));
  ASSERT_EQ(cut.examples.size(), 1u);
  EXPECT_LE(cut.examples[0].size(), 60);
  EXPECT_GE(cut.examples[0].size(), 55);
  EXPECT_THAT(Whole(cut.examples[0]), HasSubstr("\xE4\xBD\xA0"
                                                "end<|im_end|>"));
  EXPECT_THAT(Whole(cut.examples[0]), Not(HasSubstr("\xEF\xBF\xBD")));
  EXPECT_GT(cut.examples[0].num_targets(), 0);
}

TEST_F(CutoffTest, AnAnswerThatDoesNotFitIsAnError) {
  const Example example = Conversation(Json::array(
      {Json::object({{"role", "user"}, {"content", "q"}}),
       Json::object({{"role", "assistant"}, {"content", Words("a", 50)}})}));
  EXPECT_THAT(Fit(example, 40),
              Fails(absl::StatusCode::kInvalidArgument, "data.cutoff_len 40"));
}

TEST_F(CutoffTest, DropAndErrorDoWhatTheySay) {
  const Example example = Conversation(Json::array(
      {Json::object({{"role", "user"}, {"content", Words("q", 50)}}),
       Json::object({{"role", "assistant"}, {"content", "a"}})}));
  over_cutoff_ = OverCutoff::kDrop;
  FT_ASSERT_OK_AND_ASSIGN(const FittedExamples dropped, Fit(example, 40));
  EXPECT_TRUE(dropped.was_too_long);
  EXPECT_TRUE(dropped.examples.empty());
  over_cutoff_ = OverCutoff::kError;
  EXPECT_THAT(Fit(example, 40),
              Fails(absl::StatusCode::kInvalidArgument, "data.cutoff_len 40"));
}

TEST_F(CutoffTest, ASplitRowIsCutTurnByTurn) {
  UseTemplate("qwen3");
  const Example example = Conversation(Json::array(
      {Json::object({{"role", "user"}, {"content", "One?"}}),
       Json::object({{"role", "assistant"},
                     {"content", "<think>\nt\n</think>\n\nFirst."}}),
       Json::object({{"role", "user"}, {"content", Words("q", 80)}}),
       Json::object({{"role", "assistant"},
                     {"content", "<think>\nu\n</think>\n\nSecond."}})}));
  FT_ASSERT_OK_AND_ASSIGN(const FittedExamples cut, Fit(example, 100));
  EXPECT_TRUE(cut.was_too_long);
  ASSERT_EQ(cut.examples.size(), 2u);
  EXPECT_THAT(Whole(cut.examples[0]), HasSubstr("First."));
  EXPECT_THAT(Whole(cut.examples[1]), Not(HasSubstr("First.")));
  EXPECT_THAT(Whole(cut.examples[1]), HasSubstr("q79"));
  for (const TokenizedExample& example_cut : cut.examples) {
    EXPECT_LE(example_cut.size(), 100);
    EXPECT_GT(example_cut.num_targets(), 0);
  }
}

}  // namespace
}  // namespace ft
