// SPDX-License-Identifier: Apache-2.0
//
// Ids, tokens, offsets and decoded text equal Hugging Face's own for every
// string of tests/golden/text/tokenizers.json.

#include "text/tokenizer.h"

#include "common/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/text/golden_text.h"
#include "text/ft_text.h"
#include "text/sentencepiece.h"

namespace ft {
namespace {

using testing::CodePointsBefore;
using testing::GoldenText;
using testing::GoldenTextJson;

// The golden names files as its generator knew them.
std::string TokenizerFile(const nlohmann::ordered_json& golden) {
  const std::string path = golden["file"];
  return GoldenText((path.find("smollm2") == std::string::npos
                         ? "tokenizers/"
                         : "smollm2_tokenizer/") +
                    BaseName(path));
}

class TokenizerGoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerGoldenTest, EveryStringEqualsTheReference) {
  const auto golden = GoldenTextJson("text/tokenizers.json");
  const auto& mine = golden["tokenizers"][GetParam()];
  FT_ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer,
                          Tokenizer::Parse(TokenizerFile(mine)));
  EXPECT_EQ(tokenizer.vocab_size(), mine["vocab"].get<int64_t>());
  EXPECT_EQ(tokenizer.id_end(), mine["vocab"].get<int64_t>());
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

// The library spells an unknown piece, SentencePiece writes " \xE2\x81\x87 ".
std::string WithUnknownsSpelled(std::string text) {
  const std::string unknown = " \xE2\x81\x87 ";
  for (size_t at; (at = text.find(unknown)) != std::string::npos;) {
    text.replace(at, unknown.size(), "<unk>");
  }
  return text;
}

TEST(SentencePieceTest, IdsEqualSentencePieceAndWhatDiffersIsKnown) {
  const auto golden = GoldenTextJson("text/tokenizers.json");
  const auto& mine = golden["tokenizers"]["sentencepiece_2000"];
  FT_ASSERT_OK_AND_ASSIGN(const std::string json,
                          TokenizerJsonFromSentencePiece(TokenizerFile(mine)));
  FT_ASSERT_OK_AND_ASSIGN(const Tokenizer tokenizer, Tokenizer::Parse(json));
  EXPECT_EQ(tokenizer.vocab_size(), mine["vocab"].get<int64_t>());
  EXPECT_EQ(tokenizer.IdOf("<s>"), mine["bos"].get<int64_t>());
  int compared = 0, same_decode = 0, same_offsets = 0;
  for (size_t i = 0; i < mine["rows"].size(); ++i) {
    const std::string text = golden["strings"][i];
    const auto& row = mine["rows"][i];
    if (row.contains("skipped")) continue;
    SCOPED_TRACE(text);
    FT_ASSERT_OK_AND_ASSIGN(const Encoding encoding, tokenizer.Encode(text));
    // Special tokens are found in a text, because chat templates write them.
    if (text.find("<s>") != std::string::npos) {
      EXPECT_EQ(encoding.ids[0], 1);
      continue;
    }
    EXPECT_EQ(encoding.ids, row["ids"].get<std::vector<int64_t>>());
    ++compared;
    same_decode += tokenizer.Decode(encoding.ids, false).value() ==
                   WithUnknownsSpelled(row["decode"]);
    bool same = encoding.ids.size() == row["offsets"].size();
    for (size_t t = 0; same && t < encoding.ids.size(); ++t) {
      same = encoding.begin[t] == row["offsets"][t][0] &&
             encoding.end[t] == row["offsets"][t][1];
    }
    same_offsets += same;
  }
  EXPECT_EQ(compared, 49);
  EXPECT_EQ(same_decode, 49);
  // The library gives the prefix "\xE2\x96\x81" the bytes of the character
  // behind it (SentencePiece none), and of a run of spaces the last one alone;
  // also in a character that is spelled by several pieces the borders differ.
  EXPECT_EQ(same_offsets, 17);
}

TEST(SentencePieceTest, WhatIsNoUnigramModelIsRefused) {
  const std::string model = GoldenText("tokenizers/sentencepiece_2000.model");
  const auto code = absl::StatusCode::kInvalidArgument;
  for (const std::string& bytes :
       {std::string(), std::string("\xFF\xFF\xFF"),
        std::string("\x0A\x05"
                    "a"),
        model.substr(0, model.size() - 1), std::string("IQ== 0\nIg== 1\n")}) {
    EXPECT_THAT(TokenizerJsonFromSentencePiece(bytes),
                testing::Fails(code, "not a SentencePiece model"));
  }
  // A second trainer_spec with model_type BPE; the last one counts.
  EXPECT_THAT(TokenizerJsonFromSentencePiece(model + "\x12\x02\x18\x02"),
              testing::Fails(code, "Unigram"));
}

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
  EXPECT_EQ(tokenizer.Decode({-1}, false).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tokenizer.Decode({int64_t{1} << 32}, false).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerTest, LimitsAreNamed) {
  EXPECT_THAT(Tokenizer::Parse(std::string(kMaxTokenizerBytes + 1, ' ')),
              testing::Fails(absl::StatusCode::kResourceExhausted, "67108864"));
  EXPECT_THAT(Tokenizer::Parse(R"({"version": "1.0", "added_tokens": [],
        "model": {"type": "WordLevel", "unk_token": "a",
                  "vocab": {"a": 0, "b": 4194304}}})"),
              testing::Fails(absl::StatusCode::kResourceExhausted, "4194304"));
}

TEST(TokenizerTest, ACharacterThatNeverBecomesWholeComesOutAtTheEnd) {
  FT_ASSERT_OK_AND_ASSIGN(
      const Tokenizer tokenizer,
      Tokenizer::Parse(GoldenText("smollm2_tokenizer/tokenizer.json")));
  const Encoding world = tokenizer.Encode("a\xF0\x9F\x8C\x8D").value();
  ASSERT_GT(world.ids.size(), 2u);
  StreamingDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.Add(world.ids[0]).value(), "a");
  EXPECT_EQ(decoder.Add(world.ids[1]).value(), "");
  EXPECT_EQ(decoder.Finish().value(), "\xEF\xBF\xBD");
}

TEST(TokenizerTest, APanicInsideComesOutAsAnError) {
  char* error = nullptr;
  EXPECT_EQ(ft_text_test_panic(&error), nullptr);
  EXPECT_THAT(error, ::testing::MatchesRegex("panic at src/ffi.rs:.*: boom"));
  ft_error_free(error);
}

TEST(TokenizerTest, ACharacterMapIsNoLargerThanItsText) {
  constexpr absl::string_view kBefore =
      R"({"version": "1.0", "truncation": null, "padding": null,
          "added_tokens": [], "normalizer": {"type": "Precompiled",
          "precompiled_charsmap": ")";
  constexpr absl::string_view kBehind =
      R"("}, "pre_tokenizer": null, "post_processor": null, "decoder": null,
          "model": {"type": "WordLevel", "vocab": {"a": 0},
                    "unk_token": "a"}})";
  // A trie of 0xfffffff0 bytes, then none.
  EXPECT_THAT(
      Tokenizer::Parse(absl::StrCat(kBefore, "8P///wAA", kBehind)),
      testing::Fails(absl::StatusCode::kInvalidArgument,
                     "precompiled_charsmap: a trie of 4294967280 bytes"));
}

}  // namespace
}  // namespace ft
