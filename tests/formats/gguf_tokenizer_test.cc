// SPDX-License-Identifier: Apache-2.0

#include "formats/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include "tests/formats/gguf_builder.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::ft::testing::Fails;
using ::ft::testing::GgufBuilder;
using ::ft::testing::Golden;
using ::ft::testing::ReadAll;
using ::ft::testing::ReadJson;
using ::ft::testing::TestDir;
using ::ft::testing::WriteBytes;
using nlohmann::json;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

// What a small tokenizer says of itself; a test changes one thing.
struct Vocabulary {
  std::string model = "gpt2";
  std::string pre = "gpt-2";
  std::vector<std::string> tokens = {"<e>", "a", "b", "ab", "<tool>"};
  std::vector<int32_t> types = {3, 1, 1, 1, 4};
  std::vector<std::string> merges = {"a b"};
  uint32_t eos = 0;
  bool adds_bos = false;
};

class GgufTokenizerTest : public ::testing::Test {
 protected:
  absl::StatusOr<TokenizerFiles> Make(const Vocabulary& vocabulary) {
    GgufBuilder builder;
    builder.String("tokenizer.ggml.model", vocabulary.model)
        .String("tokenizer.ggml.pre", vocabulary.pre)
        .Strings("tokenizer.ggml.tokens", vocabulary.tokens)
        .Ints("tokenizer.ggml.token_type", vocabulary.types)
        .Strings("tokenizer.ggml.merges", vocabulary.merges)
        .U32("tokenizer.ggml.bos_token_id", 0)
        .U32("tokenizer.ggml.eos_token_id", vocabulary.eos)
        .U32("tokenizer.ggml.eot_token_id", 4)
        .Bool("tokenizer.ggml.add_bos_token", vocabulary.adds_bos);
    WriteBytes(dir_ / "t.gguf", builder.Build());
    FT_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(dir_ / "t.gguf"));
    return MakeTokenizerFiles(file);
  }

  TestDir dir_;
};

TEST_F(GgufTokenizerTest, TinyChatHasTheTokenizerItWasMadeFrom) {
  FT_ASSERT_OK_AND_ASSIGN(const GgufFile file,
                          GgufFile::Open(Golden("models/tiny_chat.gguf")));
  FT_ASSERT_OK_AND_ASSIGN(const TokenizerFiles files, MakeTokenizerFiles(file));
  const json made = json::parse(files.tokenizer_json);
  const json golden = ReadJson(Golden("models/tiny_chat/tokenizer.json"));

  for (const char* key :
       {"added_tokens", "normalizer", "pre_tokenizer", "decoder", "model"}) {
    EXPECT_EQ(made[key], golden[key]) << key;
  }
  const json config = json::parse(files.tokenizer_config_json);
  EXPECT_EQ(config["chat_template"],
            ReadAll(Golden("models/tiny_chat/chat_template.jinja")));
  EXPECT_EQ(config["eos_token"], "<|im_end|>");
  const json generation = json::parse(files.generation_config_json);
  EXPECT_EQ(generation["eos_token_id"], 2);
}

TEST_F(GgufTokenizerTest, ControlTokensAreSpecialAndTheUsersOwnAreNot) {
  FT_ASSERT_OK_AND_ASSIGN(const TokenizerFiles files, Make({}));
  const json added = json::parse(files.tokenizer_json)["added_tokens"];
  ASSERT_EQ(added.size(), 2u);
  EXPECT_EQ(added[0]["content"], "<e>");
  EXPECT_EQ(added[0]["special"], true);
  EXPECT_EQ(added[1]["content"], "<tool>");
  EXPECT_EQ(added[1]["special"], false);
}

TEST_F(GgufTokenizerTest, ATurnsEndIsAStopTokenToo) {
  FT_ASSERT_OK_AND_ASSIGN(const TokenizerFiles files, Make({}));
  EXPECT_EQ(json::parse(files.generation_config_json)["eos_token_id"],
            json({0, 4}));
}

TEST_F(GgufTokenizerTest, ABosThatIsAddedGoesBeforeEveryText) {
  EXPECT_TRUE(
      json::parse(Make({})->tokenizer_json)["post_processor"].is_null());
  FT_ASSERT_OK_AND_ASSIGN(const TokenizerFiles files, Make({.adds_bos = true}));
  const json processor = json::parse(files.tokenizer_json)["post_processor"];
  EXPECT_EQ(processor["single"][0]["SpecialToken"]["id"], "<e>");
  EXPECT_EQ(processor["special_tokens"]["<e>"]["ids"], json({0}));
  EXPECT_EQ(processor["pair"].size(), 4u);
}

TEST_F(GgufTokenizerTest, OtherKindsAreRefusedByName) {
  EXPECT_THAT(Make({.model = "llama"}),
              Fails(kUnimplemented,
                    "\"llama\" is not supported yet; supported: "
                    "gpt2"));
  EXPECT_THAT(Make({.pre = "qwen2"}),
              Fails(kUnimplemented,
                    "tokenizer.ggml.pre: \"qwen2\" is not supported yet; "
                    "supported: gpt-2, smollm"));
}

TEST_F(GgufTokenizerTest, ContradictionsAreRefused) {
  EXPECT_THAT(Make({.tokens = {"<e>", "a", "a", "ab", "<tool>"}}),
              Fails(kInvalid, "token 2, \"a\", stands twice"));
  EXPECT_THAT(Make({.tokens = {"<e>", "a", "b", "\xff", "<tool>"}}),
              Fails(kInvalid, "token 3 is not UTF-8"));
  EXPECT_THAT(Make({.types = {1}}), Fails(kInvalid, "1 types for 5 tokens"));
  EXPECT_THAT(Make({.merges = {"a c"}}), Fails(kInvalid, "merge 0"));
  EXPECT_THAT(Make({.merges = {"b a"}}), Fails(kInvalid, "merge 0"));
  EXPECT_THAT(Make({.merges = {"ab"}}), Fails(kInvalid, "merge 0"));
  EXPECT_THAT(Make({.eos = 5}), Fails(kInvalid, "5 is not in [0, 5)"));
}

}  // namespace
}  // namespace ft
