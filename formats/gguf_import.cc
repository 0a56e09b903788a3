// SPDX-License-Identifier: Apache-2.0

#include "formats/gguf_import.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numbers>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/file.h"
#include "common/status.h"
#include "formats/gguf_tokenizer.h"
#include "formats/json.h"
#include "formats/model_spec.h"
#include "formats/safetensors.h"
#include "formats/weight_names.h"

namespace ft {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kPieceBytes = int64_t{4} << 20;
constexpr char kRopeFrequencies[] = "rope_freqs.weight";

// The llama3 scalings that Meta published; a file holds only their result.
constexpr double kLlama3Factors[] = {8.0, 32.0};
constexpr double kLlama3Low = 1.0;
constexpr double kLlama3High = 4.0;
constexpr double kLlama3Original = 8192.0;

// fp32 of a short decimal, as people write it: 1e-05, not
// 9.999999747378752e-06.
double ShortDecimal(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", value);
  return std::strtod(text, nullptr);
}

absl::Status CheckArchitecture(const GgufFile& file) {
  FT_ASSIGN_OR_RETURN(const absl::string_view architecture,
                      file.GetString("general.architecture"));
  if (architecture != "llama") {
    return absl::UnimplementedError(
        absl::StrCat("general.architecture: ", JsonString(architecture),
                     " is not supported yet; supported: llama"));
  }
  FT_ASSIGN_OR_RETURN(const int64_t experts,
                      file.IntOr("llama.expert_count", 0));
  if (experts > 0) {
    return absl::UnimplementedError(absl::StrCat(
        "llama.expert_count: ", experts,
        ": mixtures of experts are not supported yet; supported: llama"));
  }
  FT_ASSIGN_OR_RETURN(const int64_t parts, file.IntOr("split.count", 1));
  if (parts > 1) {
    return absl::UnimplementedError(
        absl::StrCat("split.count: ", parts,
                     ": files in parts are not supported yet; join them with "
                     "llama-gguf-split --merge"));
  }
  return absl::OkStatus();
}

// Whether `divisors` are those of llama3 scaling by `factor`: 1 for short
// wavelengths, `factor` for long ones, a ramp between.
bool IsLlama3Scaling(std::span<const float> divisors, double theta,
                     double factor) {
  const double d = 2.0 * divisors.size();
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double frequency = std::pow(theta, -2.0 * i / d);
    const double wavelength = 2 * std::numbers::pi / frequency;
    double expected = 1.0;
    if (wavelength > kLlama3Original / kLlama3Low) {
      expected = factor;
    } else if (wavelength >= kLlama3Original / kLlama3High) {
      const double smooth = (kLlama3Original / wavelength - kLlama3Low) /
                            (kLlama3High - kLlama3Low);
      expected = 1.0 / ((1 - smooth) / factor + smooth);
    }
    if (std::abs(divisors[i] - expected) > 1e-3 * expected) return false;
  }
  return true;
}

absl::StatusOr<ordered_json> Llama3Scaling(const GgufTensor& frequencies,
                                           double theta) {
  std::vector<float> divisors(frequencies.numel());
  DecodeGgufBlocks(frequencies.type, frequencies.bytes, divisors);
  for (const double factor : kLlama3Factors) {
    if (!IsLlama3Scaling(divisors, theta, factor)) continue;
    return ordered_json{{"rope_type", "llama3"},
                        {"factor", factor},
                        {"low_freq_factor", kLlama3Low},
                        {"high_freq_factor", kLlama3High},
                        {"original_max_position_embeddings",
                         static_cast<int64_t>(kLlama3Original)}};
  }
  return absl::UnimplementedError(
      absl::StrCat(kRopeFrequencies, ": is none of the known llama3 scalings"));
}

absl::StatusOr<ordered_json> RopeScaling(const GgufFile& file, double theta) {
  std::string type = "none";
  if (file.Has("llama.rope.scaling.type")) {
    FT_ASSIGN_OR_RETURN(const absl::string_view text,
                        file.GetString("llama.rope.scaling.type"));
    type = std::string(text);
  }
  if (const GgufTensor* frequencies = file.Find(kRopeFrequencies)) {
    return Llama3Scaling(*frequencies, theta);
  }
  if (type == "none") return ordered_json(nullptr);
  if (type != "linear" && type != "yarn") {
    return absl::UnimplementedError(
        absl::StrCat("llama.rope.scaling.type: ", JsonString(type),
                     " is not supported yet; supported: none, linear, yarn"));
  }
  ordered_json scaling;
  scaling["rope_type"] = type;
  FT_ASSIGN_OR_RETURN(const double factor,
                      file.GetFloat("llama.rope.scaling.factor"));
  scaling["factor"] = ShortDecimal(factor);
  if (type == "yarn") {
    FT_ASSIGN_OR_RETURN(
        scaling["original_max_position_embeddings"],
        file.GetInt("llama.rope.scaling.original_context_length"));
  }
  return scaling;
}

absl::StatusOr<int64_t> HeadDim(const GgufFile& file, int64_t hidden,
                                int64_t heads) {
  if (heads <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("llama.attention.head_count: ", heads));
  }
  FT_ASSIGN_OR_RETURN(const int64_t head_dim,
                      file.IntOr("llama.attention.key_length", hidden / heads));
  FT_ASSIGN_OR_RETURN(const int64_t value_dim,
                      file.IntOr("llama.attention.value_length", head_dim));
  FT_ASSIGN_OR_RETURN(const int64_t rotated,
                      file.IntOr("llama.rope.dimension_count", head_dim));
  if (value_dim != head_dim || rotated != head_dim) {
    return absl::UnimplementedError(absl::StrCat(
        "heads of ", head_dim, " with values of ", value_dim, " and ", rotated,
        " rotated are not supported yet; supported: all three equal"));
  }
  return head_dim;
}

absl::Status AddShape(const GgufFile& file, ordered_json& json) {
  FT_ASSIGN_OR_RETURN(const int64_t hidden,
                      file.GetInt("llama.embedding_length"));
  FT_ASSIGN_OR_RETURN(const int64_t heads,
                      file.GetInt("llama.attention.head_count"));
  FT_ASSIGN_OR_RETURN(const int64_t kv_heads,
                      file.IntOr("llama.attention.head_count_kv", heads));
  FT_ASSIGN_OR_RETURN(json["head_dim"], HeadDim(file, hidden, heads));
  json["hidden_act"] = "silu";
  json["hidden_size"] = hidden;
  FT_ASSIGN_OR_RETURN(json["intermediate_size"],
                      file.GetInt("llama.feed_forward_length"));
  FT_ASSIGN_OR_RETURN(json["max_position_embeddings"],
                      file.GetInt("llama.context_length"));
  json["mlp_bias"] = file.Find("blk.0.ffn_gate.bias") != nullptr;
  json["model_type"] = "llama";
  json["num_attention_heads"] = heads;
  FT_ASSIGN_OR_RETURN(json["num_hidden_layers"],
                      file.GetInt("llama.block_count"));
  json["num_key_value_heads"] = kv_heads;
  return absl::OkStatus();
}

// The embedding's rows say how many tokens there are.
absl::StatusOr<int64_t> VocabSize(const GgufFile& file) {
  const GgufTensor* embedding = file.Find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    return absl::InvalidArgumentError(
        "token_embd.weight: is missing, or no matrix");
  }
  return embedding->shape[0];
}

absl::StatusOr<ordered_json> ConfigOf(const GgufFile& file) {
  FT_RETURN_IF_ERROR(CheckArchitecture(file));
  ordered_json json;
  json["architectures"] = {"LlamaForCausalLM"};
  json["attention_bias"] = file.Find("blk.0.attn_q.bias") != nullptr;
  json["attention_dropout"] = 0.0;
  for (const auto& [key, metadata] :
       {std::pair{"bos_token_id", "tokenizer.ggml.bos_token_id"},
        std::pair{"eos_token_id", "tokenizer.ggml.eos_token_id"},
        std::pair{"pad_token_id", "tokenizer.ggml.padding_token_id"}}) {
    if (!file.Has(metadata)) continue;
    FT_ASSIGN_OR_RETURN(json[key], file.GetInt(metadata));
  }
  FT_RETURN_IF_ERROR(AddShape(file, json));
  FT_ASSIGN_OR_RETURN(const double eps,
                      file.GetFloat("llama.attention.layer_norm_rms_epsilon"));
  FT_ASSIGN_OR_RETURN(const double theta,
                      file.FloatOr("llama.rope.freq_base", 10000.0));
  json["rms_norm_eps"] = ShortDecimal(eps);
  FT_ASSIGN_OR_RETURN(json["rope_scaling"], RopeScaling(file, theta));
  json["rope_theta"] = theta;
  json["tie_word_embeddings"] = file.Find("output.weight") == nullptr;
  json["torch_dtype"] = "float32";
  json["use_cache"] = true;
  FT_ASSIGN_OR_RETURN(json["vocab_size"], VocabSize(file));
  return json;
}

// A parameter and the tensor it comes from.
struct Source {
  ParameterSpec parameter;
  const GgufTensor* tensor = nullptr;
};

// Pairs every parameter with a tensor of its shape, and every tensor with a
// parameter.
absl::StatusOr<std::vector<Source>> PairTensors(const GgufFile& file,
                                                const ModelSpec& spec) {
  std::vector<Source> sources;
  for (ParameterSpec& parameter : spec.Parameters()) {
    const std::optional<std::string> name = GgufNameOfHf(parameter.name);
    FT_CHECK(name.has_value());
    const GgufTensor* tensor = file.Find(*name);
    if (tensor == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", *name, ": is missing"));
    }
    if (tensor->shape != parameter.shape) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", *name, ": shape is [", absl::StrJoin(tensor->shape, ", "),
          "], the metadata say [", absl::StrJoin(parameter.shape, ", "), "]"));
    }
    sources.push_back({.parameter = std::move(parameter), .tensor = tensor});
  }
  if (sources.size() == file.tensors().size()) return sources;
  for (const GgufTensor& tensor : file.tensors()) {
    const bool is_used = std::any_of(
        sources.begin(), sources.end(),
        [&](const Source& source) { return source.tensor == &tensor; });
    if (!is_used && tensor.name != kRopeFrequencies) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", tensor.name, ": is no part of a llama"));
    }
  }
  return sources;
}

absl::Status CheckFinite(const Source& source, std::span<const float> values) {
  for (const float value : values) {
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", source.tensor->name,
                       ": holds a value that is not finite"));
    }
  }
  return absl::OkStatus();
}

// Decodes row by row, each from its place in the file's order.
absl::Status CopyRows(const ModelSpec& spec, const Source& source,
                      SafetensorsWriter& writer) {
  const ParameterSpec& parameter = source.parameter;
  const GgufTypeInfo& info = InfoOf(source.tensor->type);
  const bool is_matrix = parameter.shape.size() == 2;
  const int64_t cols = is_matrix ? parameter.shape[1] : 1;
  const int64_t rows = parameter.shape[0];
  const int64_t heads = PermutedHeads(spec, parameter.name);
  // A vector has blocks that run over its "rows": decode it in one piece.
  if (!is_matrix && heads == 0) {
    std::vector<float> values(rows);
    DecodeGgufBlocks(info.type, source.tensor->bytes, values);
    FT_RETURN_IF_ERROR(CheckFinite(source, values));
    return writer.Append(parameter.name, std::as_bytes(std::span(values)));
  }
  if (cols % info.block_elements != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", source.tensor->name, ": rows are no whole blocks"));
  }
  const int64_t row_bytes = cols / info.block_elements * info.block_bytes;
  const int64_t piece_rows = std::max<int64_t>(
      1, kPieceBytes / (cols * static_cast<int64_t>(sizeof(float))));
  std::vector<float> piece;
  for (int64_t begin = 0; begin < rows; begin += piece_rows) {
    const int64_t count = std::min(piece_rows, rows - begin);
    piece.resize(count * cols);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row =
          heads > 0 ? GgufRowOf(begin + i, rows, heads) : begin + i;
      DecodeGgufBlocks(info.type,
                       source.tensor->bytes.subspan(row * row_bytes, row_bytes),
                       std::span(piece).subspan(i * cols, cols));
    }
    FT_RETURN_IF_ERROR(CheckFinite(source, piece));
    FT_RETURN_IF_ERROR(
        writer.Append(parameter.name, std::as_bytes(std::span(piece))));
  }
  return absl::OkStatus();
}

absl::Status WriteWeights(const GgufFile& file, const ModelSpec& spec,
                          const std::string& path,
                          const ImportProgressFn& progress) {
  FT_ASSIGN_OR_RETURN(const std::vector<Source> sources,
                      PairTensors(file, spec));
  std::vector<TensorInfo> infos;
  for (const Source& source : sources) {
    infos.push_back({.name = source.parameter.name,
                     .dtype = DType::kF32,
                     .shape = source.parameter.shape});
  }
  FT_ASSIGN_OR_RETURN(SafetensorsWriter writer,
                      SafetensorsWriter::Create(path, std::move(infos)));
  ImportProgress state;
  for (const Source& source : sources) {
    state.total_bytes += source.parameter.numel() * sizeof(float);
  }
  for (const Source& source : sources) {
    state.what = source.parameter.name;
    if (progress) progress(state);
    FT_RETURN_IF_ERROR(CopyRows(spec, source, writer));
    state.done_bytes += source.parameter.numel() * sizeof(float);
  }
  state.what = "fsync";
  if (progress) progress(state);
  return writer.Finish();
}

}  // namespace

absl::StatusOr<std::string> MakeConfigJson(const GgufFile& file) {
  FT_ASSIGN_OR_RETURN(const ordered_json json, ConfigOf(file), file.path());
  return json.dump(2);
}

absl::Status WriteHfDirectory(const GgufFile& file, const std::string& dir,
                              const ImportProgressFn& progress) {
  FT_ASSIGN_OR_RETURN(const std::string config, MakeConfigJson(file));
  FT_ASSIGN_OR_RETURN(const ModelSpec spec, ParseModelSpec(config),
                      file.path());
  FT_ASSIGN_OR_RETURN(const TokenizerFiles tokenizer, MakeTokenizerFiles(file));
  FT_RETURN_IF_ERROR(
      WriteWeights(file, spec, JoinPath(dir, "model.safetensors"), progress),
      file.path());
  for (const auto& [name, text] :
       {std::pair<const char*, const std::string&>{"config.json", config},
        {"generation_config.json", tokenizer.generation_config_json},
        {"tokenizer.json", tokenizer.tokenizer_json},
        {"tokenizer_config.json", tokenizer.tokenizer_config_json},
        {"special_tokens_map.json", tokenizer.special_tokens_map_json}}) {
    FT_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(dir, name), text));
  }
  return absl::OkStatus();
}

absl::Status ImportGguf(const std::string& path, const std::string& out_dir,
                        const ImportProgressFn& progress) {
  FT_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(path));
  return PublishDirectory(out_dir, [&](const std::string& dir) {
    return WriteHfDirectory(file, dir, progress);
  });
}

}  // namespace ft
