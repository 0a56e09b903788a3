// SPDX-License-Identifier: Apache-2.0

#include "formats/peft_adapter.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "formats/json.h"
#include "formats/model_spec.h"
#include "formats/safetensors.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::ft::testing::Fails;
using ::ft::testing::Golden;
using ::ft::testing::ReadAll;
using ::ft::testing::ReadJson;
using nlohmann::json;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

const char kAdapter[] = "training/llama_untied/lora/adapter_init/";

absl::StatusOr<AdapterConfig> ParsePatched(const json& patch) {
  json config = ReadJson(Golden(absl::StrCat(kAdapter, kAdapterConfigName)));
  config.merge_patch(patch);
  return ParseAdapterConfig(config.dump());
}

TEST(PeftAdapterTest, ReadsWhatPeftWrote) {
  std::vector<std::string> warnings;
  FT_ASSERT_OK_AND_ASSIGN(
      const AdapterConfig config,
      ParseAdapterConfig(
          ReadAll(Golden(absl::StrCat(kAdapter, kAdapterConfigName))),
          &warnings));
  EXPECT_EQ(config.lora_rank, 4);
  EXPECT_EQ(config.lora_alpha, 8);
  EXPECT_EQ(config.scale(), 2.0);
  EXPECT_EQ(config.target_modules.size(), 7u);
  EXPECT_EQ(config.base_model_name_or_path, "models/llama_untied");
  EXPECT_TRUE(warnings.empty()) << warnings[0];
}

TEST(PeftAdapterTest, NamesAreThoseOfPeftsFile) {
  FT_ASSERT_OK_AND_ASSIGN(const SafetensorsFile file,
                          SafetensorsFile::Open(Golden(
                              absl::StrCat(kAdapter, kAdapterWeightsName))));
  FT_ASSERT_OK_AND_ASSIGN(
      const ModelSpec spec,
      ReadModelSpec(Golden("models/llama_untied/config.json")));
  for (const LinearSpec& linear : spec.Linears()) {
    FT_ASSERT_OK_AND_ASSIGN(const TensorView* a,
                            file.Get(LoraAName(linear.module)));
    FT_ASSERT_OK_AND_ASSIGN(const TensorView* b,
                            file.Get(LoraBName(linear.module)));
    EXPECT_EQ(a->shape, (std::vector<int64_t>{4, linear.in_features}));
    EXPECT_EQ(b->shape, (std::vector<int64_t>{linear.out_features, 4}));
  }
  EXPECT_EQ(file.tensors().size(), 2 * spec.Linears().size());
}

TEST(PeftAdapterTest, WhatIsWrittenIsASubsetOfWhatPeftWrites) {
  const AdapterConfig config{
      .base_model_name_or_path = "models/llama_untied",
      .lora_rank = 4,
      .lora_alpha = 8,
      .target_modules = {"up_proj", "v_proj", "down_proj", "q_proj",
                         "gate_proj", "o_proj", "k_proj"}};
  const std::string text = AdapterConfigJson(config);
  json written = json::parse(text);
  json golden = ReadJson(Golden(absl::StrCat(kAdapter, kAdapterConfigName)));
  EXPECT_TRUE(std::is_sorted(written["target_modules"].begin(),
                             written["target_modules"].end()));
  std::sort(golden["target_modules"].begin(), golden["target_modules"].end());
  for (const auto& [key, value] : written.items()) {
    EXPECT_EQ(value, golden[key]) << key;
  }
  // Sorted keys and indent 2, to the byte.
  EXPECT_EQ(text, written.dump(2));
  EXPECT_EQ(text.substr(0, 22), "{\n  \"alpha_pattern\": {");
}

TEST(PeftAdapterTest, WhatIsWrittenIsReadBack) {
  AdapterConfig config{.base_model_name_or_path = "x",
                       .lora_rank = 16,
                       .lora_alpha = 22.5,
                       .lora_dropout = 0.05,
                       .target_modules = {"a", "b"},
                       .use_rslora = true,
                       .modules_to_save = {"lm_head"}};
  FT_ASSERT_OK_AND_ASSIGN(const AdapterConfig back,
                          ParseAdapterConfig(AdapterConfigJson(config)));
  EXPECT_EQ(back.lora_alpha, 22.5);
  EXPECT_EQ(back.lora_dropout, 0.05);
  EXPECT_EQ(back.scale(), 22.5 / 4);
  EXPECT_EQ(back.modules_to_save, config.modules_to_save);
}

TEST(PeftAdapterTest, VariantsThatChangeTheArithmeticAreRefused) {
  EXPECT_THAT(ParsePatched({{"peft_type", "PREFIX_TUNING"}}),
              Fails(kUnimplemented,
                    "\"PREFIX_TUNING\" is not supported; "
                    "supported: LORA"));
  EXPECT_THAT(ParsePatched({{"rank_pattern", {{"q_proj", 8}}}}),
              Fails(kUnimplemented, "rank_pattern"));
  EXPECT_THAT(ParsePatched({{"bias", "all"}}), Fails(kUnimplemented, "bias"));
  EXPECT_THAT(ParsePatched({{"fan_in_fan_out", true}}),
              Fails(kUnimplemented, "fan_in_fan_out"));
  EXPECT_THAT(ParsePatched({{"init_lora_weights", "pissa"}}),
              Fails(kUnimplemented, "pissa"));
  EXPECT_THAT(ParsePatched({{"layers_to_transform", {0}}}),
              Fails(kUnimplemented, "layers_to_transform"));
}

TEST(PeftAdapterTest, FaultsAreNamed) {
  EXPECT_THAT(ParsePatched({{"r", 0}}), Fails(kInvalid, "r: 0 is not"));
  EXPECT_THAT(ParsePatched({{"target_modules", json::array()}}),
              Fails(kInvalid, "target_modules: names no module"));
  EXPECT_THAT(ParsePatched({{"lora_alpha", "8"}}),
              Fails(kInvalid, "lora_alpha: \"8\" is not a number"));
  EXPECT_THAT(ParseAdapterConfig("{"), Fails(kInvalid, "not valid JSON"));
  std::vector<std::string> warnings;
  json config = ReadJson(Golden(absl::StrCat(kAdapter, kAdapterConfigName)));
  config["brand_new"] = 1;
  FT_ASSERT_OK(ParseAdapterConfig(config.dump(), &warnings));
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("brand_new"), std::string::npos);
}

TEST(PeftAdapterTest, TargetsMatchWholeNamesOrTheLastPart) {
  const std::vector<std::string> targets = {"q_proj", "mlp.up_proj"};
  EXPECT_TRUE(IsTarget(targets, "model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(IsTarget(targets, "model.layers.0.mlp.up_proj"));
  EXPECT_TRUE(IsTarget(targets, "q_proj"));
  EXPECT_FALSE(IsTarget(targets, "model.layers.0.self_attn.xq_proj"));
  EXPECT_FALSE(IsTarget(targets, "model.layers.0.self_attn.k_proj"));
}

}  // namespace
}  // namespace ft
