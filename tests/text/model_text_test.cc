// SPDX-License-Identifier: Apache-2.0
//
// What a model directory says about its text, and which file wins.

#include "text/model_text.h"

#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/text/golden_text.h"

namespace ft {
namespace {

using ::testing::ElementsAre;
using testing::Fails;
using testing::GoldenText;

class ModelTextTest : public ::testing::Test {
 protected:
  ModelTextTest() {
    Write("tokenizer.json", GoldenText("tokenizers/tiny_bpe_tokenizer.json"));
  }
  void Write(const std::string& name, const std::string& text) {
    FT_CHECK(WriteFileAtomic(dir_ / name, text).ok());
  }
  std::string Rendered(absl::string_view template_name = "tokenizer") {
    return LoadModelText(dir_.path(), template_name)
        ->Render({.messages_json = R"([{"role": "user", "content": "q"}])"})
        ->text;
  }
  testing::TestDir dir_;
};

TEST_F(ModelTextTest, SmolLM2HasItsTokensTemplateAndStop) {
  FT_ASSERT_OK_AND_ASSIGN(
      const ModelText text,
      LoadModelText(FT_TEST_SOURCE_DIR "/tests/golden/smollm2_tokenizer"));
  EXPECT_EQ(text.bos_token, "<|im_start|>");
  EXPECT_EQ(text.eos_token, "<|im_end|>");
  EXPECT_EQ(text.pad_token, "<|im_end|>");
  EXPECT_EQ(text.special_tokens.at("unk_token"), "<|endoftext|>");
  EXPECT_THAT(text.stop_ids, ElementsAre(2));
  EXPECT_TRUE(text.IsStop(2));
  EXPECT_FALSE(text.IsStop(1));
  EXPECT_EQ(text.Render({.messages_json =
                             R"([{"role": "system", "content": "s"},
                                 {"role": "user", "content": "q"}])",
                         .add_generation_prompt = true})
                ->text,
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n"
            "<|im_start|>assistant\n");
}

TEST_F(ModelTextTest, TheTemplateFileWinsOverTheKey) {
  Write("tokenizer_config.json", R"({"chat_template": "key"})");
  EXPECT_EQ(Rendered(), "key");
  Write("chat_template.jinja", "file");
  EXPECT_EQ(Rendered(), "file");
  EXPECT_EQ(Rendered("chatml"), "<|im_start|>user\nq<|im_end|>\n");
}

TEST_F(ModelTextTest, OfSeveralTemplatesTheDefaultIsTaken) {
  Write("tokenizer_config.json", R"({"chat_template": [
      {"name": "tool_use", "template": "tools"},
      {"name": "default", "template": "plain"}]})");
  EXPECT_EQ(Rendered(), "plain");
}

TEST_F(ModelTextTest, WithoutATemplateTheMessageSaysWhatToWrite) {
  EXPECT_THAT(
      LoadModelText(dir_.path()),
      Fails(absl::StatusCode::kFailedPrecondition, "data.template: chatml"));
  FT_EXPECT_OK(LoadModelText(dir_.path(), "chatml"));
  EXPECT_THAT(LoadModelText(dir_.path(), "vicunia"),
              Fails(absl::StatusCode::kNotFound, "chatml"));
}

TEST_F(ModelTextTest, TokensAreStringsOrObjectsAndTheConfigWins) {
  Write("tokenizer_config.json", R"({"chat_template": "{{ bos_token }}",
      "bos_token": {"content": "<b>"}, "eos_token": "<|im_end|>",
      "pad_token": null})");
  Write("special_tokens_map.json",
        R"({"bos_token": "<x>", "unk_token": "<u>"})");
  FT_ASSERT_OK_AND_ASSIGN(const ModelText text, LoadModelText(dir_.path()));
  EXPECT_EQ(text.bos_token, "<b>");
  EXPECT_EQ(text.pad_token, "");
  EXPECT_EQ(text.special_tokens.at("unk_token"), "<u>");
  EXPECT_EQ(Rendered(), "<b>");
  EXPECT_THAT(text.stop_ids, ElementsAre(2002));
}

TEST_F(ModelTextTest, StopsAreThoseOfGenerationElseOfTheModel) {
  Write("tokenizer_config.json", R"({"eos_token": "<|im_end|>"})");
  Write("config.json", R"({"eos_token_id": 7})");
  EXPECT_THAT(LoadModelText(dir_.path(), "chatml")->stop_ids,
              ElementsAre(7, 2002));
  Write("generation_config.json", R"({"eos_token_id": [2002, 2000]})");
  EXPECT_THAT(LoadModelText(dir_.path(), "chatml")->stop_ids,
              ElementsAre(2000, 2002));
}

TEST_F(ModelTextTest, VariablesReachTheTemplate) {
  Write("chat_template.jinja",
        "{{ thinking }} {{ tools is none }} {{ add_generation_prompt }}");
  FT_ASSERT_OK_AND_ASSIGN(const ModelText text, LoadModelText(dir_.path()));
  EXPECT_EQ(text.Render({.variables_json = R"({"thinking": "no"})"})->text,
            "no True False");
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(text.Render({.variables_json = "[]"}), Fails(code, "variables"));
  EXPECT_THAT(text.Render({.messages_json = "{"}), Fails(code, "messages"));
}

TEST_F(ModelTextTest, ASentencePieceModelStandsInForTokenizerJson) {
  testing::TestDir other;
  EXPECT_EQ(LoadModelText(other.path()).status().code(),
            absl::StatusCode::kNotFound);
  FT_ASSERT_OK(
      WriteFileAtomic(other / "tokenizer.model",
                      GoldenText("tokenizers/sentencepiece_2000.model")));
  FT_ASSERT_OK_AND_ASSIGN(const ModelText text,
                          LoadModelText(other.path(), "chatml"));
  EXPECT_EQ(text.tokenizer.Encode("Hello world")->ids,
            (std::vector<int64_t>{12, 1803, 1024}));
}

TEST_F(ModelTextTest, BrokenFilesAreNamed) {
  Write("tokenizer_config.json", "[]");
  EXPECT_THAT(LoadModelText(dir_.path()),
              Fails(absl::StatusCode::kInvalidArgument,
                    "tokenizer_config.json: no JSON object"));
  Write("tokenizer.json", "{}");
  EXPECT_THAT(LoadModelText(dir_.path()),
              Fails(absl::StatusCode::kInvalidArgument, "tokenizer.json"));
}

TEST_F(ModelTextTest, NestingOfItsFilesIsBounded) {
  Write("chat_template.jinja", "x");
  Write("tokenizer_config.json", std::string(100'000, '['));
  EXPECT_THAT(LoadModelText(dir_.path()),
              Fails(absl::StatusCode::kInvalidArgument,
                    "tokenizer_config.json: nested deeper than 32 levels"));
  Write("tokenizer_config.json",
        R"({"a_token": )" + std::string(40, '[') + std::string(40, ']') + "}");
  EXPECT_THAT(LoadModelText(dir_.path()),
              Fails(absl::StatusCode::kInvalidArgument, "nested deeper"));
}

}  // namespace
}  // namespace ft
