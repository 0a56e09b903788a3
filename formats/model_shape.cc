// SPDX-License-Identifier: Apache-2.0

#include "formats/model_shape.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/regular_file.h"
#include "common/status.h"
#include "formats/config_reader.h"
#include "formats/json.h"
#include "formats/model_spec.h"

namespace ft {
namespace {

// What a family's file may leave out, and what it never says. A default of 0:
// the file must say it.
struct Family {
  absl::string_view name;  // model_type
  int64_t vocab_size = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  // 0: as many as heads.
  int64_t head_dim = 0;      // 0: hidden_size / num_heads.
  bool is_tied = false;
  bool always_qkv_bias = false;
  // attention_bias and mlp_bias are keys of the family.
  bool may_have_attention_bias = false;
  bool may_have_mlp_bias = false;
  bool fused_projections = false;
  bool qk_norm = false;
  bool post_norms = false;
};

// The defaults are those of the configuration classes of transformers, which
// leave out of a file what equals them (gemma3 does).
constexpr Family kFamilies[] = {
    {.name = "llama",
     .may_have_attention_bias = true,
     .may_have_mlp_bias = true},
    {.name = "mistral", .num_kv_heads = 8},
    {.name = "qwen2", .always_qkv_bias = true},
    {.name = "qwen3",
     .head_dim = 128,
     .may_have_attention_bias = true,
     .qk_norm = true},
    {.name = "gemma",
     .head_dim = 256,
     .is_tied = true,
     .may_have_attention_bias = true},
    {.name = "gemma2",
     .head_dim = 256,
     .is_tied = true,
     .may_have_attention_bias = true,
     .post_norms = true},
    {.name = "gemma3_text",
     .vocab_size = 262208,
     .num_heads = 8,
     .num_kv_heads = 4,
     .head_dim = 256,
     .is_tied = true,
     .may_have_attention_bias = true,
     .qk_norm = true,
     .post_norms = true},
    {.name = "phi3", .fused_projections = true},
};

const Family* FindFamily(absl::string_view name) {
  // Files of the first gemma3 name it without "_text" where there is no image
  // part beside it.
  if (name == "gemma3") name = "gemma3_text";
  for (const Family& family : kFamilies) {
    if (family.name == name) return &family;
  }
  return nullptr;
}

std::optional<int64_t> OrMissing(int64_t value) {
  return value == 0 ? std::nullopt : std::optional(value);
}

void ReadSizes(ConfigReader& config, const Family& family, ModelShape& shape) {
  shape.vocab_size =
      config.Int("vocab_size", OrMissing(family.vocab_size), 1, kMaxVocab);
  shape.hidden_size = config.Int("hidden_size", std::nullopt, 1, kMaxWidth);
  shape.intermediate_size =
      config.Int("intermediate_size", std::nullopt, 1, kMaxWidth);
  shape.num_layers =
      config.Int("num_hidden_layers", std::nullopt, 1, kMaxLayers);
  shape.num_heads = config.Int("num_attention_heads",
                               OrMissing(family.num_heads), 1, kMaxHeads);
  shape.num_kv_heads = config.Int(
      "num_key_value_heads",
      family.num_kv_heads == 0 ? shape.num_heads : family.num_kv_heads, 1,
      kMaxHeads);
  shape.head_dim =
      config.Int("head_dim",
                 family.head_dim == 0
                     ? std::max<int64_t>(1, shape.hidden_size / shape.num_heads)
                     : family.head_dim,
                 1, kMaxHeadDim);
  shape.max_position =
      config.Int("max_position_embeddings", 2048, 1, kMaxPosition);
  if (shape.num_heads % shape.num_kv_heads != 0) {
    config.Fault("num_key_value_heads",
                 absl::StrCat(shape.num_kv_heads, " does not divide ",
                              shape.num_heads, " attention heads"));
  }
  if (family.head_dim == 0 && config.Find("head_dim") == nullptr &&
      shape.hidden_size % shape.num_heads != 0) {
    config.Fault("hidden_size",
                 absl::StrCat(shape.hidden_size, " is no multiple of ",
                              shape.num_heads, " attention heads"));
  }
}

void ReadKnobs(ConfigReader& config, const Family& family, ModelShape& shape) {
  const bool attention_bias =
      family.may_have_attention_bias && config.Bool("attention_bias", false);
  shape.qkv_bias = family.always_qkv_bias || attention_bias;
  shape.output_bias = attention_bias;
  shape.mlp_bias = family.may_have_mlp_bias && config.Bool("mlp_bias", false);
  shape.fused_projections = family.fused_projections;
  shape.qk_norm = family.qk_norm;
  shape.post_norms = family.post_norms;
  shape.dtype = ReadDType(config);
}

// The object that says the sizes: of a model with an image part the one within.
absl::StatusOr<const nlohmann::json*> TextPart(const nlohmann::json& root) {
  if (!root.is_object()) {
    return absl::InvalidArgumentError("not a JSON object");
  }
  const auto found = root.find("text_config");
  if (found == root.end() || found->is_null()) return &root;
  if (!found->is_object()) {
    return absl::InvalidArgumentError("text_config: is not an object");
  }
  return &*found;
}

}  // namespace

std::vector<LinearShape> ModelShape::Linears() const {
  const int64_t h = hidden_size;
  const int64_t q = q_features();
  const int64_t kv = kv_features();
  const int64_t wide = intermediate_size;
  const char* attention = "self_attn";
  std::vector<LinearShape> all;
  if (fused_projections) {
    all.push_back({attention, "qkv_proj", h, q + 2 * kv, qkv_bias});
  } else {
    all.push_back({attention, "q_proj", h, q, qkv_bias});
    all.push_back({attention, "k_proj", h, kv, qkv_bias});
    all.push_back({attention, "v_proj", h, kv, qkv_bias});
  }
  all.push_back({attention, "o_proj", q, h, output_bias});
  if (fused_projections) {
    all.push_back({"mlp", "gate_up_proj", h, 2 * wide, mlp_bias});
  } else {
    all.push_back({"mlp", "gate_proj", h, wide, mlp_bias});
    all.push_back({"mlp", "up_proj", h, wide, mlp_bias});
  }
  all.push_back({"mlp", "down_proj", wide, h, mlp_bias});
  return all;
}

int64_t ModelShape::LinearsOfBlock() const {
  return hidden_size *
         (2 * q_features() + 2 * kv_features() + 3 * intermediate_size);
}

int64_t ModelShape::Block() const {
  const int64_t norms =
      (post_norms ? 4 : 2) * hidden_size + (qk_norm ? 2 * head_dim : 0);
  const int64_t biases = (qkv_bias ? q_features() + 2 * kv_features() : 0) +
                         (output_bias ? hidden_size : 0) +
                         (mlp_bias ? 2 * intermediate_size + hidden_size : 0);
  return LinearsOfBlock() + norms + biases;
}

int64_t ModelShape::NumParameters() const {
  return num_layers * Block() + hidden_size +
         (tie_word_embeddings ? 1 : 2) * Embedding();
}

int64_t LossChunkRows(int64_t vocab_size) {
  constexpr int64_t kChunkBytes = 32 << 20;
  return std::max<int64_t>(
      16, kChunkBytes / (static_cast<int64_t>(sizeof(float)) * vocab_size));
}

absl::StatusOr<ModelShape> ParseModelShape(absl::string_view config_json) {
  if (static_cast<int64_t>(config_json.size()) > kMaxConfigBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("larger than ", kMaxConfigBytes, " bytes"));
  }
  FT_ASSIGN_OR_RETURN(const nlohmann::json root, ParseJson(config_json));
  FT_ASSIGN_OR_RETURN(const nlohmann::json* const text, TextPart(root));
  ConfigReader outer(root);
  ConfigReader config(*text, text == &root ? "" : "text_config.");
  ModelShape shape;
  const std::string outer_family = outer.String("model_type", "");
  shape.family = config.String("model_type", outer_family);
  FT_RETURN_IF_ERROR(outer.Verdict());
  FT_RETURN_IF_ERROR(config.Verdict());
  if (shape.family.empty()) {
    return absl::InvalidArgumentError("model_type: is missing");
  }
  const Family* const family = FindFamily(shape.family);
  if (family == nullptr) {
    std::vector<absl::string_view> names;
    for (const Family& each : kFamilies) names.push_back(each.name);
    return absl::UnimplementedError(absl::StrCat(
        "model_type: ", JsonString(shape.family),
        " cannot be planned; there is ", absl::StrJoin(names, ", ")));
  }
  ReadSizes(config, *family, shape);
  ReadKnobs(config, *family, shape);
  // Beside an image part it stands with either.
  const bool outer_tied = outer.Bool("tie_word_embeddings", family->is_tied);
  shape.tie_word_embeddings = config.Bool("tie_word_embeddings", outer_tied);
  config.Absorb(outer);
  FT_RETURN_IF_ERROR(config.Verdict());
  shape.why_not_trained =
      std::string(ParseModelSpec(config_json).status().message());
  return shape;
}

absl::StatusOr<ModelShape> ReadModelShape(const std::string& config_path) {
  FT_ASSIGN_OR_RETURN(const std::string text,
                      ReadRegularFile(config_path, kMaxConfigBytes));
  FT_ASSIGN_OR_RETURN(ModelShape shape, ParseModelShape(text), config_path);
  return shape;
}

}  // namespace ft
