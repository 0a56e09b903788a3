// SPDX-License-Identifier: Apache-2.0

#include "formats/model_spec.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/file.h"
#include "common/regular_file.h"
#include "common/status.h"
#include "formats/config_reader.h"
#include "formats/json.h"

namespace ft {
namespace {

constexpr absl::string_view kSupported = "supported: llama";

double YarnScale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// The file's own factor, or from its two mscales, or the paper's
// (arXiv:2309.00071, 3.4).
double YarnAttentionFactor(ConfigReader& reader, double factor) {
  const double given = reader.Number("attention_factor", 0.0, 0.0, 1e3);
  if (given > 0) return given;
  const double mscale = reader.Number("mscale", 0.0, 0.0, 1e3);
  const double all_dim = reader.Number("mscale_all_dim", 0.0, 0.0, 1e3);
  if (mscale > 0 && all_dim > 0) {
    return YarnScale(factor, mscale) / YarnScale(factor, all_dim);
  }
  return YarnScale(factor, 1.0);
}

void ReadLlama3(ConfigReader& reader, int64_t config_original, RopeSpec& rope) {
  rope.low_freq_factor =
      reader.Number("low_freq_factor", std::nullopt, 1e-6, 1e6);
  rope.high_freq_factor =
      reader.Number("high_freq_factor", std::nullopt, 1e-6, 1e6);
  const std::optional<int64_t> original =
      config_original > 0 ? std::optional(config_original) : std::nullopt;
  rope.original_max_position =
      reader.Int("original_max_position_embeddings", original, 1, kMaxPosition);
  if (rope.low_freq_factor >= rope.high_freq_factor) {
    reader.Fault("low_freq_factor", "is not below high_freq_factor");
  }
}

void ReadYarn(ConfigReader& reader, int64_t original, RopeSpec& rope) {
  rope.beta_fast = reader.Number("beta_fast", 32.0, 1e-6, 1e6);
  rope.beta_slow = reader.Number("beta_slow", 1.0, 1e-6, 1e6);
  rope.original_max_position =
      reader.Int("original_max_position_embeddings", original, 1, kMaxPosition);
  rope.attention_factor = YarnAttentionFactor(reader, rope.factor);
  if (!reader.Bool("truncate", true)) {
    reader.Unsupported("truncate", "false is not supported yet");
  }
  if (rope.theta <= 1) reader.Fault("rope_theta", "yarn needs more than 1");
}

void ReadRopeKind(ConfigReader& reader, const ModelSpec& spec,
                  int64_t config_original, const std::string& kind,
                  RopeSpec& rope) {
  if (kind == "default") {
    rope.kind = RopeKind::kDefault;
    // Files of other kinds are edited into this one and keep their keys.
    for (const char* key : {"factor", "original_max_position_embeddings"}) {
      reader.Ignore(key);
    }
    return;
  }
  rope.factor = reader.Number("factor", std::nullopt, 1e-6, 1e6);
  if (kind == "linear") {
    rope.kind = RopeKind::kLinear;
    reader.Ignore("original_max_position_embeddings");
  } else if (kind == "dynamic") {
    rope.kind = RopeKind::kDynamic;
    rope.original_max_position = spec.max_position;
    reader.Ignore("original_max_position_embeddings");
    if (spec.head_dim <= 2) {
      reader.Fault("rope_type", "dynamic needs a head_dim over 2");
    }
  } else if (kind == "llama3") {
    rope.kind = RopeKind::kLlama3;
    ReadLlama3(reader, config_original, rope);
  } else if (kind == "yarn") {
    rope.kind = RopeKind::kYarn;
    ReadYarn(reader, config_original > 0 ? config_original : spec.max_position,
             rope);
  } else {
    reader.Unsupported(
        "rope_type", absl::StrCat(JsonString(kind),
                                  " is not supported yet; supported: default, "
                                  "linear, dynamic, llama3, yarn"));
  }
}

// Both spellings: rope_scaling beside rope_theta, and rope_parameters.
RopeSpec ReadRope(ConfigReader& config, const ModelSpec& spec,
                  std::vector<std::string>& warnings) {
  RopeSpec rope;
  rope.theta = config.Number("rope_theta", 10000.0, 1e-3, 1e12);
  const int64_t config_original =
      config.Int("original_max_position_embeddings", 0, 1, kMaxPosition);
  const nlohmann::json* parameters = config.Find("rope_parameters");
  const nlohmann::json* scaling = config.Find("rope_scaling");
  const nlohmann::json* object = parameters != nullptr ? parameters : scaling;
  if (object == nullptr) return rope;
  const std::string where =
      parameters != nullptr ? "rope_parameters" : "rope_scaling";
  if (!object->is_object()) {
    config.Fault(where, "is not an object");
    return rope;
  }

  ConfigReader reader(*object, where + ".");
  rope.theta = reader.Number("rope_theta", rope.theta, 1e-3, 1e12);
  const std::string old_spelling = reader.String("type", "");
  std::string kind = reader.String("rope_type", old_spelling);
  if (kind.empty() && parameters != nullptr) kind = "default";
  if (kind.empty()) {
    reader.Fault("rope_type", "is missing");
  } else {
    ReadRopeKind(reader, spec, config_original, kind, rope);
  }
  if (reader.Number("partial_rotary_factor", 1.0, 0.0, 1.0) != 1.0) {
    reader.Unsupported("partial_rotary_factor",
                       "only 1 is supported yet: all of a head is rotated");
  }
  config.Absorb(reader);
  for (const std::string& key : reader.UnreadKeys()) {
    warnings.push_back(absl::StrCat(key, ": has no meaning here; ignored"));
  }
  return rope;
}

// An id of the vocabulary; nothing if the key is missing. Files of old models
// have pad ids such as -1.
std::optional<int64_t> ReadTokenId(ConfigReader& config, const std::string& key,
                                   int64_t vocab_size,
                                   std::vector<std::string>& warnings) {
  const int64_t id = config.Int(key, -1, -1, kMaxVocab);
  if (id >= 0 && id < vocab_size) return id;
  if (config.Find(key) != nullptr) {
    warnings.push_back(absl::StrCat(key, ": ", id, " is not in [0, ",
                                    vocab_size, "); ignored"));
  }
  return std::nullopt;
}

std::vector<int64_t> ReadEosIds(ConfigReader& config, int64_t vocab_size) {
  const nlohmann::json* value = config.Find("eos_token_id");
  if (value == nullptr) return {};
  const nlohmann::json list =
      value->is_array() ? *value : nlohmann::json::array({*value});
  std::vector<int64_t> ids;
  for (const nlohmann::json& id : list) {
    if (!id.is_number_unsigned() ||
        id.get<uint64_t>() >= static_cast<uint64_t>(vocab_size)) {
      config.Fault("eos_token_id",
                   absl::StrCat("not a token id in [0, ", vocab_size,
                                "), nor a list of them"));
      return {};
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

void ReadShape(ConfigReader& config, ModelSpec& spec) {
  spec.vocab_size = config.Int("vocab_size", std::nullopt, 1, kMaxVocab);
  spec.hidden_size = config.Int("hidden_size", std::nullopt, 1, kMaxWidth);
  spec.intermediate_size =
      config.Int("intermediate_size", std::nullopt, 1, kMaxWidth);
  spec.num_layers =
      config.Int("num_hidden_layers", std::nullopt, 1, kMaxLayers);
  spec.num_heads =
      config.Int("num_attention_heads", std::nullopt, 1, kMaxHeads);
  spec.num_kv_heads =
      config.Int("num_key_value_heads", spec.num_heads, 1, kMaxHeads);
  spec.head_dim = config.Int(
      "head_dim", std::max<int64_t>(1, spec.hidden_size / spec.num_heads), 1,
      kMaxHeadDim);
  spec.max_position =
      config.Int("max_position_embeddings", 2048, 1, kMaxPosition);
  if (spec.num_heads % spec.num_kv_heads != 0) {
    config.Fault("num_key_value_heads",
                 absl::StrCat(spec.num_kv_heads, " does not divide ",
                              spec.num_heads, " attention heads"));
  }
  if (config.Find("head_dim") == nullptr &&
      spec.hidden_size % spec.num_heads != 0) {
    config.Fault("hidden_size",
                 absl::StrCat(spec.hidden_size, " is no multiple of ",
                              spec.num_heads, " attention heads"));
  }
  if (spec.head_dim % 2 != 0) {
    config.Fault("head_dim", absl::StrCat(spec.head_dim, " is odd"));
  }
}

void RefuseWhatChangesTheArithmetic(ConfigReader& config) {
  const std::string act = config.String("hidden_act", "silu");
  if (act != "silu" && act != "swish") {
    config.Unsupported("hidden_act", absl::StrCat(JsonString(act),
                                                  " is not supported yet; "
                                                  "supported: silu"));
  }
  if (config.Bool("rope_interleaved", false)) {
    config.Unsupported("rope_interleaved", "true is not supported yet");
  }
  if (config.Number("partial_rotary_factor", 1.0, 0.0, 1.0) != 1.0) {
    config.Unsupported("partial_rotary_factor",
                       "only 1 is supported yet: all of a head is rotated");
  }
}

void WarnOfTheRest(ConfigReader& config, std::vector<std::string>& warnings) {
  if (config.Find("auto_map") != nullptr) {
    warnings.push_back("auto_map: code beside a model is never run; ignored");
  }
  if (config.Number("attention_dropout", 0.0, 0.0, 1.0) != 0.0) {
    warnings.push_back("attention_dropout: is not applied in training");
  }
  for (const char* key :
       {"_name_or_path", "architectures", "initializer_range",
        "is_llama_config", "pretraining_tp", "transformers_version",
        "transformers.js_config", "use_cache"}) {
    config.Ignore(key);
  }
  for (const std::string& key : config.UnreadKeys()) {
    warnings.push_back(absl::StrCat(key, ": has no meaning here; ignored"));
  }
}

// Of the many ways to store fewer bits, NF4 of bitsandbytes.
std::optional<Nf4Quantization> ReadQuantization(ConfigReader& config) {
  constexpr char kInstead[] =
      "supported: bitsandbytes with load_in_4bit and nf4; or convert the model "
      "to a floating type";
  const nlohmann::json* object = config.Find("quantization_config");
  if (object == nullptr) return std::nullopt;
  if (!object->is_object()) {
    config.Fault("quantization_config", "is not an object");
    return std::nullopt;
  }
  ConfigReader reader(*object, "quantization_config.");
  const auto refuse = [&](const char* key, const std::string& value) {
    reader.Unsupported(
        key, absl::StrCat(value, " is not supported yet; ", kInstead));
  };
  const std::string method = reader.String("quant_method", "");
  const std::string type = reader.String("bnb_4bit_quant_type", "fp4");
  if (method != "bitsandbytes") {
    refuse("quant_method", JsonString(method));
  } else if (reader.Bool("load_in_8bit", false)) {
    refuse("load_in_8bit", "true");
  } else if (!reader.Bool("load_in_4bit", false)) {
    refuse("load_in_4bit", "false");
  } else if (type != "nf4") {
    refuse("bnb_4bit_quant_type", JsonString(type));
  }
  const Nf4Quantization stored{
      .double_quant = reader.Bool("bnb_4bit_use_double_quant", false)};
  config.Absorb(reader);
  return stored;
}

ModelSpec ReadLlama(ConfigReader& config, std::vector<std::string>& warnings) {
  ModelSpec spec;
  spec.model_type = "llama";
  ReadShape(config, spec);
  spec.rms_norm_eps = config.Number("rms_norm_eps", 1e-6, 0.0, 1.0);
  spec.attention_bias = config.Bool("attention_bias", false);
  spec.mlp_bias = config.Bool("mlp_bias", false);
  spec.tie_word_embeddings = config.Bool("tie_word_embeddings", false);
  spec.rope = ReadRope(config, spec, warnings);
  spec.bos_token_id =
      ReadTokenId(config, "bos_token_id", spec.vocab_size, warnings);
  spec.eos_token_ids = ReadEosIds(config, spec.vocab_size);
  spec.pad_token_id =
      ReadTokenId(config, "pad_token_id", spec.vocab_size, warnings);
  spec.dtype = ReadDType(config);
  spec.quantization = ReadQuantization(config);
  RefuseWhatChangesTheArithmetic(config);
  WarnOfTheRest(config, warnings);
  return spec;
}

absl::Status CheckFamily(ConfigReader& config) {
  const std::string family = config.String("model_type", "");
  FT_RETURN_IF_ERROR(config.Verdict());
  if (family.empty()) {
    return absl::InvalidArgumentError("model_type: is missing");
  }
  if (family != "llama") {
    return absl::UnimplementedError(
        absl::StrCat("model_type: ", JsonString(family),
                     " is not supported yet; ", kSupported));
  }
  const std::vector<std::string> architectures =
      config.Strings("architectures");
  FT_RETURN_IF_ERROR(config.Verdict());
  if (!architectures.empty() && architectures[0] != "LlamaForCausalLM") {
    return absl::UnimplementedError(
        absl::StrCat("architectures: ", JsonString(architectures[0]),
                     " is not supported yet; supported: LlamaForCausalLM"));
  }
  return absl::OkStatus();
}

void AddLinear(std::vector<LinearSpec>& linears, int64_t layer,
               absl::string_view part, absl::string_view kind, int64_t in,
               int64_t out, bool has_bias) {
  linears.push_back(
      {.module = absl::StrCat("model.layers.", layer, ".", part, ".", kind),
       .kind = std::string(kind),
       .layer = layer,
       .in_features = in,
       .out_features = out,
       .has_bias = has_bias});
}

void AddLinearParameters(std::vector<ParameterSpec>& parameters,
                         const LinearSpec& linear) {
  parameters.push_back({.name = linear.module + ".weight",
                        .shape = {linear.out_features, linear.in_features},
                        .role = ParameterRole::kLinearWeight,
                        .layer = linear.layer});
  if (linear.has_bias) {
    parameters.push_back({.name = linear.module + ".bias",
                          .shape = {linear.out_features},
                          .role = ParameterRole::kLinearBias,
                          .layer = linear.layer});
  }
}

}  // namespace

absl::string_view NameOf(RopeKind kind) {
  switch (kind) {
    case RopeKind::kDefault:
      return "default";
    case RopeKind::kLinear:
      return "linear";
    case RopeKind::kDynamic:
      return "dynamic";
    case RopeKind::kLlama3:
      return "llama3";
    case RopeKind::kYarn:
      return "yarn";
  }
  return "unknown";
}

int64_t ParameterSpec::numel() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1},
                         std::multiplies<>());
}

std::vector<LinearSpec> ModelSpec::Linears() const {
  const int64_t h = hidden_size;
  std::vector<LinearSpec> all;
  for (int64_t i = 0; i < num_layers; ++i) {
    AddLinear(all, i, "self_attn", "q_proj", h, q_features(), attention_bias);
    AddLinear(all, i, "self_attn", "k_proj", h, kv_features(), attention_bias);
    AddLinear(all, i, "self_attn", "v_proj", h, kv_features(), attention_bias);
    AddLinear(all, i, "self_attn", "o_proj", q_features(), h, attention_bias);
    AddLinear(all, i, "mlp", "gate_proj", h, intermediate_size, mlp_bias);
    AddLinear(all, i, "mlp", "up_proj", h, intermediate_size, mlp_bias);
    AddLinear(all, i, "mlp", "down_proj", intermediate_size, h, mlp_bias);
  }
  return all;
}

std::vector<ParameterSpec> ModelSpec::Parameters() const {
  std::vector<ParameterSpec> all;
  const auto add_norm = [&](std::string name, int64_t layer) {
    all.push_back({.name = std::move(name),
                   .shape = {hidden_size},
                   .role = ParameterRole::kNorm,
                   .layer = layer});
  };
  all.push_back({.name = "model.embed_tokens.weight",
                 .shape = {vocab_size, hidden_size},
                 .role = ParameterRole::kEmbedding,
                 .layer = -1});
  for (const LinearSpec& linear : Linears()) {
    const std::string block = absl::StrCat("model.layers.", linear.layer, ".");
    if (linear.kind == "q_proj") {
      add_norm(block + "input_layernorm.weight", linear.layer);
    } else if (linear.kind == "gate_proj") {
      add_norm(block + "post_attention_layernorm.weight", linear.layer);
    }
    AddLinearParameters(all, linear);
  }
  add_norm("model.norm.weight", num_layers);
  if (!tie_word_embeddings) {
    all.push_back({.name = "lm_head.weight",
                   .shape = {vocab_size, hidden_size},
                   .role = ParameterRole::kHead,
                   .layer = num_layers});
  }
  return all;
}

int64_t ModelSpec::NumParameters() const {
  int64_t total = 0;
  for (const ParameterSpec& parameter : Parameters()) {
    total += parameter.numel();
  }
  return total;
}

absl::StatusOr<ModelSpec> ParseModelSpec(absl::string_view config_json,
                                         std::vector<std::string>* warnings) {
  if (static_cast<int64_t>(config_json.size()) > kMaxConfigBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("larger than ", kMaxConfigBytes, " bytes"));
  }
  FT_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(config_json));
  if (!json.is_object()) {
    return absl::InvalidArgumentError("not a JSON object");
  }
  ConfigReader config(json);
  FT_RETURN_IF_ERROR(CheckFamily(config));
  std::vector<std::string> heard;
  ModelSpec spec = ReadLlama(config, heard);
  FT_RETURN_IF_ERROR(config.Verdict());
  if (warnings != nullptr) *warnings = std::move(heard);
  return spec;
}

absl::StatusOr<ModelSpec> ReadModelSpec(const std::string& config_path,
                                        std::vector<std::string>* warnings) {
  FT_ASSIGN_OR_RETURN(const std::string text,
                      ReadRegularFile(config_path, kMaxConfigBytes));
  FT_ASSIGN_OR_RETURN(ModelSpec spec, ParseModelSpec(text, warnings),
                      config_path);
  return spec;
}

}  // namespace ft
