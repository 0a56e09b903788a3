// SPDX-License-Identifier: Apache-2.0

#include "formats/model_spec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "formats/safetensors.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::ft::testing::Fails;
using ::ft::testing::Golden;
using ::ft::testing::ReadAll;
using ::ft::testing::ReadJson;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

// The least that a config must say.
nlohmann::json Minimal() {
  return {{"model_type", "llama"},  {"vocab_size", 256},
          {"hidden_size", 64},      {"intermediate_size", 88},
          {"num_hidden_layers", 2}, {"num_attention_heads", 4}};
}

absl::StatusOr<ModelSpec> Parse(const nlohmann::json& config) {
  return ParseModelSpec(config.dump());
}

// `Minimal` with `patch` over it.
absl::StatusOr<ModelSpec> ParsePatched(const nlohmann::json& patch) {
  nlohmann::json config = Minimal();
  config.merge_patch(patch);
  return Parse(config);
}

class GoldenSpecTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenSpecTest, BothSpellingsGiveOneSpec) {
  const std::string dir = Golden(absl::StrCat("models/", GetParam()));
  FT_ASSERT_OK_AND_ASSIGN(ModelSpec classic,
                          ReadModelSpec(dir + "/config.json"));
  FT_ASSERT_OK_AND_ASSIGN(const ModelSpec v5,
                          ReadModelSpec(dir + "/config_v5.json"));
  EXPECT_EQ(v5.dtype, DType::kF32);
  classic.dtype = v5.dtype;  // Only the second says it.
  EXPECT_EQ(classic, v5);
}

TEST_P(GoldenSpecTest, ParametersAreExactlyTheTensorsOfTheFile) {
  const std::string dir = Golden(absl::StrCat("models/", GetParam()));
  FT_ASSERT_OK_AND_ASSIGN(const ModelSpec spec,
                          ReadModelSpec(dir + "/config.json"));
  FT_ASSERT_OK_AND_ASSIGN(const SafetensorsFile file,
                          SafetensorsFile::Open(dir + "/model.safetensors"));
  int64_t numel = 0;
  for (const ParameterSpec& parameter : spec.Parameters()) {
    const TensorView* tensor = file.Find(parameter.name);
    ASSERT_NE(tensor, nullptr) << parameter.name;
    EXPECT_EQ(tensor->shape, parameter.shape) << parameter.name;
    numel += tensor->numel();
  }
  EXPECT_EQ(spec.Parameters().size(), file.tensors().size());
  EXPECT_EQ(spec.NumParameters(), numel);
}

INSTANTIATE_TEST_SUITE_P(Llamas, GoldenSpecTest,
                         ::testing::Values("llama_tied", "llama_untied",
                                           "llama3_rope", "llama_rope_linear",
                                           "llama_rope_yarn"));

TEST(ModelSpecTest, ReadsTheShapeOfLlamaTied) {
  FT_ASSERT_OK_AND_ASSIGN(
      const ModelSpec spec,
      ReadModelSpec(Golden("models/llama_tied/config.json")));
  EXPECT_EQ(spec.head_dim, 20);  // Its own key, not 64 / 4.
  EXPECT_EQ(spec.q_features(), 80);
  EXPECT_EQ(spec.kv_features(), 40);
  EXPECT_EQ(spec.rms_norm_eps, 3e-6);
  EXPECT_EQ(spec.rope.theta, 50000.0);
  EXPECT_EQ(spec.rope.kind, RopeKind::kDefault);
  EXPECT_TRUE(spec.attention_bias);
  EXPECT_TRUE(spec.mlp_bias);
  EXPECT_TRUE(spec.tie_word_embeddings);
  EXPECT_EQ(spec.bos_token_id, 1);
  EXPECT_EQ(spec.eos_token_ids, std::vector<int64_t>{2});
  EXPECT_EQ(spec.pad_token_id, 0);
}

TEST(ModelSpecTest, ReadsTheRopesOfTheGoldens) {
  const auto rope = [](const char* name) {
    return ReadModelSpec(Golden(absl::StrCat("models/", name, "/config.json")))
        ->rope;
  };
  EXPECT_EQ(rope("llama3_rope"), (RopeSpec{.kind = RopeKind::kLlama3,
                                           .theta = 500.0,
                                           .factor = 8.0,
                                           .low_freq_factor = 1.0,
                                           .high_freq_factor = 4.0,
                                           .original_max_position = 64}));
  EXPECT_EQ(
      rope("llama_rope_linear"),
      (RopeSpec{.kind = RopeKind::kLinear, .theta = 50000.0, .factor = 2.5}));
  EXPECT_EQ(rope("llama_rope_yarn"),
            (RopeSpec{.kind = RopeKind::kYarn,
                      .theta = 50000.0,
                      .factor = 4.0,
                      .original_max_position = 32,
                      .beta_fast = 32.0,
                      .beta_slow = 1.0,
                      .attention_factor = 0.1 * std::log(4.0) + 1.0}));
}

TEST(ModelSpecTest, SmolLM2HasItsParameters) {
  FT_ASSERT_OK_AND_ASSIGN(
      const ModelSpec spec,
      ReadModelSpec(Golden("smollm2_tokenizer/config.json")));
  EXPECT_EQ(spec.NumParameters(), 134'515'008);
  EXPECT_EQ(spec.Linears().size(), 210u);
  int64_t lora_r8 = 0;
  for (const LinearSpec& linear : spec.Linears()) {
    lora_r8 += 8 * (linear.in_features + linear.out_features);
  }
  EXPECT_EQ(lora_r8, 2'442'240);
  EXPECT_EQ(spec.dtype, DType::kBF16);
}

TEST(ModelSpecTest, LinearsAreThoseOfTheBlocksInForwardOrder) {
  FT_ASSERT_OK_AND_ASSIGN(
      const ModelSpec spec,
      ReadModelSpec(Golden("models/llama_untied/config.json")));
  const std::vector<LinearSpec> linears = spec.Linears();
  ASSERT_EQ(linears.size(), 14u);
  EXPECT_EQ(linears[1].module, "model.layers.0.self_attn.k_proj");
  EXPECT_EQ(linears[1].kind, "k_proj");
  EXPECT_EQ(linears[1].out_features, 32);
  EXPECT_EQ(linears[13].module, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(linears[13].in_features, 88);
  EXPECT_EQ(spec.Parameters().back().role, ParameterRole::kHead);
}

TEST(ModelSpecTest, WhatIsMissingHasTheFamilysDefault) {
  FT_ASSERT_OK_AND_ASSIGN(const ModelSpec spec, Parse(Minimal()));
  EXPECT_EQ(spec.num_kv_heads, 4);
  EXPECT_EQ(spec.head_dim, 16);
  EXPECT_EQ(spec.max_position, 2048);
  EXPECT_EQ(spec.rms_norm_eps, 1e-6);
  EXPECT_EQ(spec.rope, RopeSpec());
  EXPECT_FALSE(spec.tie_word_embeddings);
  EXPECT_FALSE(spec.bos_token_id.has_value());
  EXPECT_TRUE(spec.eos_token_ids.empty());
}

TEST(ModelSpecTest, EosMayBeAList) {
  FT_ASSERT_OK_AND_ASSIGN(const ModelSpec spec,
                          ParsePatched({{"eos_token_id", {2, 7}}}));
  EXPECT_EQ(spec.eos_token_ids, (std::vector<int64_t>{2, 7}));
}

TEST(ModelSpecTest, AllFaultsAreNamedAtOnce) {
  const absl::StatusOr<ModelSpec> spec = ParsePatched(
      {{"vocab_size", nullptr},
       {"hidden_size", "64"},
       {"num_hidden_layers", 0},
       {"num_key_value_heads", 3},
       {"rms_norm_eps", -1},
       {"attention_bias", 1},
       {"eos_token_id", "x"},
       {"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}}}});
  for (const char* fault :
       {"vocab_size: is missing", "hidden_size: \"64\" is not an integer",
        "num_hidden_layers: 0 is not an integer in [1, 1024]",
        "num_key_value_heads: 3 does not divide 4 attention heads",
        "rms_norm_eps: -1 is not a number in [0, 1]",
        "attention_bias: 1 is not true or false",
        "eos_token_id: not a token id",
        "rope_scaling.low_freq_factor: is missing",
        "rope_scaling.original_max_position_embeddings: is missing"}) {
    EXPECT_THAT(spec, Fails(kInvalid, fault));
  }
}

TEST(ModelSpecTest, WhatHasNoShapeIsRefused) {
  EXPECT_THAT(ParsePatched({{"head_dim", 15}}), Fails(kInvalid, "is odd"));
  EXPECT_THAT(ParsePatched({{"hidden_size", 66}}),
              Fails(kInvalid, "66 is no multiple of 4"));
  EXPECT_THAT(ParsePatched({{"vocab_size", 1e9}}),
              Fails(kInvalid, "vocab_size"));
  EXPECT_THAT(ParsePatched({{"vocab_size", 256.0}}),
              Fails(kInvalid, "not an integer"));
  EXPECT_THAT(ParsePatched({{"hidden_size", 18446744073709551615u}}),
              Fails(kInvalid, "hidden_size"));
}

TEST(ModelSpecTest, OtherFamiliesAreRefusedByNameWithWhatIsSupported) {
  for (const char* family :
       {"qwen2", "mistral", "gemma3_text", "deepseek_v3", "mamba", "t5"}) {
    EXPECT_THAT(ParsePatched({{"model_type", family}}),
                Fails(kUnimplemented,
                      absl::StrCat("\"", family,
                                   "\" is not supported yet; supported: "
                                   "llama")));
  }
  EXPECT_THAT(ParsePatched({{"model_type", nullptr}}),
              Fails(kInvalid, "model_type: is missing"));
  EXPECT_THAT(
      ParsePatched({{"architectures", {"LlamaForSequenceClassification"}}}),
      Fails(kUnimplemented, "supported: LlamaForCausalLM"));
}

TEST(ModelSpecTest, WhatWouldChangeTheArithmeticIsRefused) {
  EXPECT_THAT(ParsePatched({{"hidden_act", "gelu"}}),
              Fails(kUnimplemented, "hidden_act: \"gelu\""));
  const nlohmann::json nf4 = {{"quant_method", "bitsandbytes"},
                              {"load_in_4bit", true},
                              {"bnb_4bit_quant_type", "nf4"}};
  FT_ASSERT_OK_AND_ASSIGN(const ModelSpec spec,
                          ParsePatched({{"quantization_config", nf4}}));
  EXPECT_EQ(spec.quantization, Nf4Quantization{.double_quant = false});
  const auto quantised = [&](const nlohmann::json& patch) {
    nlohmann::json changed = nf4;
    changed.merge_patch(patch);
    return ParsePatched({{"quantization_config", changed}});
  };
  for (const nlohmann::json& patch :
       std::vector<nlohmann::json>{{{"quant_method", "gptq"}},
                                   {{"quant_method", nullptr}},
                                   {{"load_in_8bit", true}},
                                   {{"load_in_4bit", false}},
                                   {{"bnb_4bit_quant_type", "fp4"}},
                                   {{"bnb_4bit_quant_type", nullptr}}}) {
    EXPECT_THAT(quantised(patch),
                Fails(kUnimplemented, "supported: bitsandbytes"))
        << patch;
  }
  EXPECT_THAT(quantised({{"load_in_4bit", "yes"}}),
              Fails(kInvalid, "quantization_config.load_in_4bit"));
  EXPECT_THAT(ParsePatched({{"quantization_config", 4}}),
              Fails(kInvalid, "quantization_config: is not an object"));
  EXPECT_THAT(ParsePatched({{"rope_interleaved", true}}),
              Fails(kUnimplemented, "rope_interleaved"));
  EXPECT_THAT(
      ParsePatched(
          {{"rope_scaling", {{"rope_type", "longrope"}, {"factor", 2}}}}),
      Fails(kUnimplemented,
            "\"longrope\" is not supported yet; supported: default, linear"));
  EXPECT_THAT(
      ParsePatched({{"rope_parameters",
                     {{"rope_theta", 1e4}, {"partial_rotary_factor", 0.5}}}}),
      Fails(kUnimplemented, "partial_rotary_factor"));
}

TEST(ModelSpecTest, ReadsTheOldSpellingOfARopeType) {
  FT_ASSERT_OK_AND_ASSIGN(
      const ModelSpec spec,
      ParsePatched({{"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}}));
  EXPECT_EQ(spec.rope.kind, RopeKind::kDynamic);
  EXPECT_EQ(spec.rope.original_max_position, 2048);
}

TEST(ModelSpecTest, YarnTakesItsAttentionFactorFromTheFile) {
  const auto factor = [](nlohmann::json extra) {
    nlohmann::json rope = {{"rope_type", "yarn"},
                           {"factor", 40.0},
                           {"original_max_position_embeddings", 64}};
    rope.merge_patch(extra);
    return ParsePatched({{"rope_scaling", rope}})->rope.attention_factor;
  };
  EXPECT_EQ(factor({{"attention_factor", 1.25}}), 1.25);
  EXPECT_EQ(factor({{"mscale", 1.0}, {"mscale_all_dim", 1.0}}), 1.0);
  EXPECT_DOUBLE_EQ(factor({{"mscale", 0.707}, {"mscale_all_dim", 1.0}}),
                   (0.0707 * std::log(40.0) + 1) / (0.1 * std::log(40.0) + 1));
}

TEST(ModelSpecTest, CodeBesideAModelIsIgnoredWithAWarning) {
  nlohmann::json config = Minimal();
  config["auto_map"] = {{"AutoModel", "modeling_evil.Evil"}};
  config["sliding_window"] = 7;
  config["use_cache"] = true;
  std::vector<std::string> warnings;
  FT_ASSERT_OK(ParseModelSpec(config.dump(), &warnings));
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_NE(warnings[0].find("auto_map"), std::string::npos);
  EXPECT_NE(warnings[1].find("sliding_window"), std::string::npos);
}

TEST(ModelSpecTest, OddIdsOfOldFilesAreIgnoredWithAWarning) {
  nlohmann::json config = Minimal();
  config["pad_token_id"] = -1;
  std::vector<std::string> warnings;
  FT_ASSERT_OK_AND_ASSIGN(const ModelSpec spec,
                          ParseModelSpec(config.dump(), &warnings));
  EXPECT_FALSE(spec.pad_token_id.has_value());
  EXPECT_EQ(warnings.size(), 1u);
}

TEST(ModelSpecTest, TextThatIsNoConfigIsRefused) {
  EXPECT_THAT(ParseModelSpec("[]"), Fails(kInvalid, "not a JSON object"));
  EXPECT_THAT(ParseModelSpec("{"), Fails(kInvalid, "not valid JSON"));
  EXPECT_THAT(ParseModelSpec(R"({"model_type":"llama","model_type":"x"})"),
              Fails(kInvalid, "stands twice"));
  EXPECT_THAT(ParseModelSpec(std::string(kMaxConfigBytes + 1, ' ')),
              Fails(kInvalid, "larger than"));
  EXPECT_THAT(ReadModelSpec(Golden("no/config.json")),
              Fails(absl::StatusCode::kNotFound, "no/config.json"));
}

}  // namespace
}  // namespace ft
