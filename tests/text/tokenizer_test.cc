// SPDX-License-Identifier: Apache-2.0
//
// Ids, tokens, offsets and decoded text equal Hugging Face's own for every
// string of tests/golden/text/tokenizers.json.

#include "text/tokenizer.h"

#include "tests/testing/status_matchers.h"
#include "tests/text/golden_text.h"
#include "text/ft_text.h"

namespace ft {
namespace {

using testing::CodePointsBefore;
using testing::GoldenText;
using testing::GoldenTextJson;

class TokenizerGoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerGoldenTest, EveryStringEqualsTheReference) {
  const auto golden = GoldenTextJson("text/tokenizers.json");
  const auto& mine = golden["tokenizers"][GetParam()];
  FT_ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer,
                          Tokenizer::Parse(GoldenText(mine["file"])));
  EXPECT_EQ(tokenizer.vocab_size(), mine["vocab"].get<int64_t>());
  ASSERT_EQ(golden["strings"].size(), mine["rows"].size());
  for (size_t i = 0; i < mine["rows"].size(); ++i) {
    const std::string text = golden["strings"][i];
    SCOPED_TRACE(text);
    const auto& row = mine["rows"][i];
    FT_ASSERT_OK_AND_ASSIGN(const Encoding with,
                            tokenizer.Encode(text, /*add_special=*/true));
    FT_ASSERT_OK_AND_ASSIGN(const Encoding without, tokenizer.Encode(text));
    EXPECT_EQ(with.ids, row["ids"].get<std::vector<int64_t>>());
    EXPECT_EQ(without.ids, row["ids_no_special"].get<std::vector<int64_t>>());
    const std::vector<int64_t> points = CodePointsBefore(text);
    for (size_t t = 0; t < with.ids.size(); ++t) {
      EXPECT_EQ(tokenizer.TokenOf(with.ids[t]).value(),
                row["tokens"][t].get<std::string>());
      EXPECT_EQ(points[with.begin[t]], row["offsets"][t][0].get<int64_t>())
          << "token " << t;
      EXPECT_EQ(points[with.end[t]], row["offsets"][t][1].get<int64_t>())
          << "token " << t;
    }
    EXPECT_EQ(tokenizer.Decode(with.ids, false).value(),
              row["decode"].get<std::string>());
    EXPECT_EQ(tokenizer.Decode(with.ids, true).value(),
              row["decode_skip_special"].get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, TokenizerGoldenTest,
                         ::testing::Values("tiny_bpe", "tiktoken_small",
                                           "smollm2"),
                         [](const auto& test) {
                           return std::string(test.param);
                         });

TEST(TokenizerTest, StreamingGivesWholeCharactersAndTheSameText) {
  FT_ASSERT_OK_AND_ASSIGN(
      const Tokenizer tokenizer,
      Tokenizer::Parse(GoldenText("smollm2_tokenizer/tokenizer.json")));
  const std::string text =
      "Hello, \xF0\x9F\x8C\x8D! \xE4\xBD\xA0\xE5\xA5\xBD \xC3\xA4.";
  FT_ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer.Encode(text));
  StreamingDecoder decoder(tokenizer);
  std::string streamed;
  for (const int64_t id : encoding.ids) {
    FT_ASSERT_OK_AND_ASSIGN(const std::string piece, decoder.Add(id));
    EXPECT_EQ(piece.find("\xEF\xBF\xBD"), std::string::npos);
    streamed += piece;
  }
  FT_ASSERT_OK_AND_ASSIGN(const std::string rest, decoder.Finish());
  EXPECT_EQ(streamed + rest, text);
}

TEST(TokenizerTest, WhatIsNoTokenizerIsRefused) {
  for (const char* json : {"", "{}", "[1]", "{\"model\": 7}", "\xFF"}) {
    EXPECT_EQ(Tokenizer::Parse(json).status().code(),
              absl::StatusCode::kInvalidArgument)
        << json;
  }
}

TEST(TokenizerTest, BadTextAndUnknownIdsAreErrors) {
  FT_ASSERT_OK_AND_ASSIGN(
      const Tokenizer tokenizer,
      Tokenizer::Parse(GoldenText("tokenizers/tiny_bpe_tokenizer.json")));
  EXPECT_FALSE(tokenizer.Encode("\xFF\xFE").ok());
  EXPECT_EQ(tokenizer.TokenOf(1 << 30).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(tokenizer.IdOf("no such token"), -1);
}

TEST(TokenizerTest, APanicInsideComesOutAsAnError) {
  char* error = nullptr;
  EXPECT_EQ(ft_text_test_panic(&error), nullptr);
  EXPECT_STREQ(error, "panic: boom");
  ft_error_free(error);
}

}  // namespace
}  // namespace ft
