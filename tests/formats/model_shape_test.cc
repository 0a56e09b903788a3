// SPDX-License-Identifier: Apache-2.0
//
// Sizes of models that everybody knows, from their config.json alone: the
// counts are those of the published weight files.

#include "formats/model_shape.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "formats/model_spec.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::Fails;
using testing::Golden;
using testing::ReadJson;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

ModelShape Shape(const std::string& name) {
  return ReadModelShape(Golden(absl::StrCat("plan/", name, "/config.json")))
      .value();
}

absl::StatusOr<ModelShape> ParsePatched(const nlohmann::json& patch) {
  nlohmann::json config = {
      {"model_type", "llama"},  {"vocab_size", 256},
      {"hidden_size", 64},      {"intermediate_size", 88},
      {"num_hidden_layers", 2}, {"num_attention_heads", 4}};
  config.merge_patch(patch);
  return ParseModelShape(config.dump());
}

TEST(ModelShapeTest, EveryFamilyHasItsParameters) {
  struct Row {
    const char* name;
    int64_t parameters;
  };
  for (const Row& row :
       {Row{"llama2_7b", 6'738'415'616}, Row{"llama31_8b", 8'030'261'248},
        Row{"llama_65b", 65'285'660'672}, Row{"llama3_70b", 70'553'706'496},
        Row{"mistral_7b", 7'241'732'096}, Row{"qwen25_05b", 494'032'768},
        Row{"qwen25_7b", 7'615'616'512}, Row{"qwen3_8b", 8'190'735'360},
        Row{"gemma_2b", 2'506'172'416}, Row{"gemma2_2b", 2'614'341'888},
        Row{"gemma3_1b", 999'885'952}, Row{"gemma3_4b", 3'880'263'168},
        Row{"phi3_mini", 3'821'079'552}}) {
    EXPECT_EQ(Shape(row.name).NumParameters(), row.parameters) << row.name;
  }
}

TEST(ModelShapeTest, AFusedProjectionIsOneLinear) {
  std::vector<std::string> kinds;
  int64_t elements = 0;
  const ModelShape shape = Shape("phi3_mini");
  for (const LinearShape& linear : shape.Linears()) {
    kinds.push_back(linear.kind);
    elements += linear.numel();
  }
  EXPECT_THAT(kinds, ::testing::ElementsAre("qkv_proj", "o_proj",
                                            "gate_up_proj", "down_proj"));
  EXPECT_EQ(elements, shape.LinearsOfBlock());
  EXPECT_EQ(shape.Linears()[0].out_features, 3 * 3072);
}

// gemma3 leaves out what equals its defaults.
TEST(ModelShapeTest, TheTextPartIsReadWithTheDefaultsOfItsFamily) {
  const ModelShape shape = Shape("gemma3_4b");
  EXPECT_EQ(shape.family, "gemma3_text");
  EXPECT_EQ(shape.num_heads, 8);
  EXPECT_EQ(shape.num_kv_heads, 4);
  EXPECT_EQ(shape.head_dim, 256);
  EXPECT_EQ(shape.vocab_size, 262208);
  EXPECT_TRUE(shape.tie_word_embeddings);
}

TEST(ModelShapeTest, WhatTheTrainerHasHasTheSameSizesThere) {
  for (const char* name :
       {"models/llama_tied", "models/llama_untied", "models/llama3_rope",
        "models/tiny_chat", "plan/llama31_8b", "plan/llama_65b"}) {
    const std::string path = Golden(absl::StrCat(name, "/config.json"));
    FT_ASSERT_OK_AND_ASSIGN(const ModelShape shape, ReadModelShape(path));
    FT_ASSERT_OK_AND_ASSIGN(const ModelSpec spec, ReadModelSpec(path));
    EXPECT_EQ(shape.why_not_trained, "");
    EXPECT_EQ(shape.NumParameters(), spec.NumParameters());
    EXPECT_EQ(shape.max_position, spec.max_position);
    EXPECT_EQ(shape.dtype, spec.dtype);
    const std::vector<LinearShape> linears = shape.Linears();
    for (size_t i = 0; i < linears.size(); ++i) {
      const LinearSpec trained = spec.Linears()[i];
      EXPECT_EQ(absl::StrCat("model.layers.0.", linears[i].part, ".",
                             linears[i].kind),
                trained.module);
      EXPECT_EQ(linears[i].in_features, trained.in_features);
      EXPECT_EQ(linears[i].out_features, trained.out_features);
    }
  }
}

TEST(ModelShapeTest, WhatTheTrainerDoesNotHaveIsSaid) {
  EXPECT_EQ(Shape("qwen3_8b").why_not_trained,
            "model_type: \"qwen3\" is not supported yet; supported: llama");
  FT_ASSERT_OK_AND_ASSIGN(const ModelShape gelu,
                          ParsePatched({{"hidden_act", "gelu"}}));
  EXPECT_EQ(gelu.why_not_trained,
            "hidden_act: \"gelu\" is not supported yet; supported: silu");
}

TEST(ModelShapeTest, BiasesCount) {
  FT_ASSERT_OK_AND_ASSIGN(const ModelShape plain,
                          ParsePatched(nlohmann::json::object()));
  FT_ASSERT_OK_AND_ASSIGN(
      const ModelShape biased,
      ParsePatched({{"attention_bias", true}, {"mlp_bias", true}}));
  EXPECT_EQ(biased.NumParameters() - plain.NumParameters(),
            2 * (3 * 64 + 64 + 2 * 88 + 64));
}

TEST(ModelShapeTest, EveryFaultIsNamed) {
  EXPECT_THAT(ParsePatched({{"hidden_size", -1}, {"vocab_size", "many"}}),
              Fails(kInvalid,
                    "vocab_size: \"many\" is not an integer in [1, 4194304]; "
                    "hidden_size: -1 is not an integer in [1, 1048576]"));
  EXPECT_THAT(ParsePatched({{"num_hidden_layers", 100000}}),
              Fails(kInvalid, "num_hidden_layers: 100000 is not an integer"));
  EXPECT_THAT(ParsePatched({{"num_key_value_heads", 3}}),
              Fails(kInvalid, "3 does not divide 4 attention heads"));
  EXPECT_THAT(ParsePatched({{"hidden_size", 63}}),
              Fails(kInvalid, "63 is no multiple of 4 attention heads"));
  EXPECT_THAT(ParsePatched({{"text_config", 3}}),
              Fails(kInvalid, "text_config: is not an object"));
  EXPECT_THAT(ParsePatched({{"model_type", nullptr}}),
              Fails(kInvalid, "model_type: is missing"));
  EXPECT_THAT(ParseModelShape("[]"), Fails(kInvalid, "not a JSON object"));
  EXPECT_THAT(ParseModelShape(std::string(kMaxConfigBytes + 1, ' ')),
              Fails(kInvalid, "larger than"));
  EXPECT_THAT(ReadModelShape(Golden("no/config.json")),
              Fails(absl::StatusCode::kNotFound, "no/config.json"));
}

TEST(ModelShapeTest, AnUnknownFamilyIsRefusedWithTheKnownOnes) {
  EXPECT_THAT(ParsePatched({{"model_type", "mamba"}}),
              Fails(kUnimplemented,
                    "model_type: \"mamba\" cannot be planned; there is llama, "
                    "mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, "
                    "phi3"));
}

}  // namespace
}  // namespace ft
