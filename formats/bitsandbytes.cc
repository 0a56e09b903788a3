// SPDX-License-Identifier: Apache-2.0

#include "formats/bitsandbytes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/status.h"
#include "formats/config_reader.h"
#include "formats/json.h"

namespace ft {
namespace {

constexpr absl::string_view kScales = ".absmax";
constexpr absl::string_view kValues = ".quant_map";
constexpr absl::string_view kSuperScales = ".nested_absmax";
constexpr absl::string_view kScaleValues = ".nested_quant_map";
constexpr absl::string_view kState = ".quant_state.bitsandbytes__nf4";
constexpr size_t kMaxStateBytes = 4096;
constexpr int kMaxStateDepth = 4;

int64_t Blocks(int64_t values, int64_t block) {
  return values / block + (values % block != 0);
}
int64_t CodeBytes(int64_t weights) { return weights / 2 + weights % 2; }

const char* NameInJson(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return "float16";
    case DType::kBF16:
      return "bfloat16";
    default:
      return "float32";
  }
}

std::optional<DType> DTypeInJson(absl::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (name == NameInJson(dtype)) return dtype;
  }
  return std::nullopt;
}

// Takes the tensors of one weight.
class Reader {
 public:
  Reader(const SafetensorsModel& weights, const std::string& name)
      : weights_(weights), name_(name) {}

  bool Has(absl::string_view suffix) const {
    return weights_.Find(absl::StrCat(name_, suffix)) != nullptr;
  }

  // The bytes of a tensor of `count` elements.
  absl::StatusOr<std::span<const std::byte>> Take(absl::string_view suffix,
                                                  DType dtype,
                                                  int64_t count) const {
    const std::string full = absl::StrCat(name_, suffix);
    const TensorView* tensor = weights_.Find(full);
    if (tensor == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          full, ": is missing; quantise the model again, or take all of it"));
    }
    if (tensor->dtype != dtype || tensor->numel() != count) {
      return absl::InvalidArgumentError(
          absl::StrCat(full, ": is ", tensor->numel(), " of ",
                       NameOf(tensor->dtype), ", wanted ", count, " of ",
                       NameOf(dtype), "; quantise the model again"));
    }
    return tensor->bytes;
  }

  // Ascending values that codes stand for.
  absl::Status TakeMap(absl::string_view suffix, std::span<float> map) const {
    FT_ASSIGN_OR_RETURN(
        const auto bytes,
        Take(suffix, DType::kF32, static_cast<int64_t>(map.size())));
    std::memcpy(map.data(), bytes.data(), bytes.size());
    const bool is_finite = std::all_of(map.begin(), map.end(), [](float value) {
      return std::isfinite(value);
    });
    if (is_finite && std::is_sorted(map.begin(), map.end())) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat(name_, suffix,
                     ": holds values that do not ascend or are not finite; "
                     "quantise the model again"));
  }

  // Codes may be stored as if they were of a wider type.
  absl::StatusOr<std::span<const std::byte>> TakeCodes(int64_t count) const {
    FT_ASSIGN_OR_RETURN(const TensorView* tensor, weights_.Get(name_));
    const int64_t wanted = CodeBytes(count);
    if (static_cast<int64_t>(tensor->bytes.size()) != wanted) {
      return absl::InvalidArgumentError(absl::StrCat(
          name_, ": has ", tensor->bytes.size(), " bytes, wanted ", wanted,
          " for ", count, " weights of 4 bits; quantise the model again"));
    }
    return tensor->bytes;
  }

  absl::StatusOr<nlohmann::json> TakeState() const {
    const std::string full = absl::StrCat(name_, kState);
    FT_ASSIGN_OR_RETURN(const TensorView* tensor, weights_.Get(full));
    if (tensor->dtype != DType::kU8 || tensor->bytes.size() > kMaxStateBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(full, ": is ", tensor->bytes.size(), " bytes of ",
                       NameOf(tensor->dtype), ", wanted at most ",
                       kMaxStateBytes, " of U8"));
    }
    FT_ASSIGN_OR_RETURN(
        nlohmann::json state,
        ParseJson({reinterpret_cast<const char*>(tensor->bytes.data()),
                   tensor->bytes.size()},
                  kMaxStateDepth),
        full);
    if (!state.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat(full, ": not a JSON object"));
    }
    return state;
  }

 private:
  const SafetensorsModel& weights_;
  const std::string& name_;
};

bool IsShape(const nlohmann::json& list, const std::vector<int64_t>& shape) {
  if (!list.is_array() || list.size() != shape.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (!list[i].is_number_unsigned() ||
        list[i].get<uint64_t>() != static_cast<uint64_t>(shape[i])) {
      return false;
    }
  }
  return true;
}

// The state's own words; `nested` is whether scales are quantised too.
absl::Status ReadState(const nlohmann::json& json, const std::string& context,
                       bool nested, StoredNf4& stored) {
  ConfigReader state(json, absl::StrCat(context, ": "));
  const std::string type = state.String("quant_type", "");
  if (type != "nf4") {
    state.Fault("quant_type",
                absl::StrCat(JsonString(type), ", wanted \"nf4\""));
  }
  const int64_t block = state.Int("blocksize", std::nullopt, 1, 1 << 20);
  if (block != kStoredNf4Block) {
    state.Unsupported(
        "blocksize",
        absl::StrCat(block, " is not supported; supported: ", kStoredNf4Block));
  }
  const std::string dtype = state.String("dtype", "");
  const std::optional<DType> known = DTypeInJson(dtype);
  if (!known) {
    state.Fault("dtype", absl::StrCat(JsonString(dtype),
                                      ", wanted float32, float16 or bfloat16"));
  }
  stored.dtype = known.value_or(DType::kF32);
  const nlohmann::json* shape = state.Find("shape");
  if (shape == nullptr || !IsShape(*shape, stored.shape)) {
    state.Fault("shape",
                absl::StrCat("is not the [", absl::StrJoin(stored.shape, ", "),
                             "] that config.json says"));
  }
  if (nested) {
    const int64_t nested_block =
        state.Int("nested_blocksize", std::nullopt, 1, 1 << 20);
    if (nested_block != kStoredScaleBlock) {
      state.Unsupported(
          "nested_blocksize",
          absl::StrCat(nested_block,
                       " is not supported; supported: ", kStoredScaleBlock));
    }
    constexpr double kLargest = std::numeric_limits<float>::max();
    stored.offset = static_cast<float>(
        state.Number("nested_offset", std::nullopt, -kLargest, kLargest));
  }
  return state.Verdict();
}

// Its length does not depend on `offset`.
std::string QuantStateJson(const std::vector<int64_t>& shape, DType dtype,
                           bool double_quant, float offset) {
  FT_CHECK(offset >= 0 && std::isfinite(offset));  // A mean of magnitudes.
  std::string json =
      absl::StrCat("{\"quant_type\": \"nf4\", \"blocksize\": ", kStoredNf4Block,
                   ", \"dtype\": \"", NameInJson(dtype), "\", \"shape\": [",
                   absl::StrJoin(shape, ", "), "]");
  if (double_quant) {
    // All digits of an fp32 number, so that it always takes as many bytes: a
    // file is laid out before the weights are read.
    absl::StrAppend(&json, ", \"nested_blocksize\": ", kStoredScaleBlock,
                    ", \"nested_dtype\": \"float32\", \"nested_offset\": ",
                    absl::StrFormat("%.17e", static_cast<double>(offset)));
  }
  return json + "}";
}

nlohmann::ordered_json ParsedConfig(absl::string_view config_json) {
  nlohmann::ordered_json config =
      nlohmann::ordered_json::parse(config_json, nullptr, false);
  FT_CHECK(config.is_object());
  return config;
}

}  // namespace

int64_t StoredNf4::numel() const {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

bool IsStoredNf4(const SafetensorsModel& weights, absl::string_view name) {
  return weights.Find(absl::StrCat(name, kState)) != nullptr;
}

std::vector<std::string> StoredNf4Names(absl::string_view name) {
  std::vector<std::string> names = {std::string(name)};
  for (const absl::string_view suffix :
       {kScales, kValues, kSuperScales, kScaleValues, kState}) {
    names.push_back(absl::StrCat(name, suffix));
  }
  return names;
}

absl::StatusOr<StoredNf4> ReadStoredNf4(const SafetensorsModel& weights,
                                        const std::string& name,
                                        const std::vector<int64_t>& shape) {
  const Reader reader(weights, name);
  StoredNf4 stored{.shape = shape};
  stored.double_quant = reader.Has(kSuperScales);
  const int64_t count = stored.numel();
  const int64_t scales = Blocks(count, kStoredNf4Block);

  FT_ASSIGN_OR_RETURN(const nlohmann::json state, reader.TakeState());
  FT_RETURN_IF_ERROR(ReadState(state, absl::StrCat(name, kState),
                               stored.double_quant, stored));
  FT_ASSIGN_OR_RETURN(stored.codes, reader.TakeCodes(count));
  FT_RETURN_IF_ERROR(reader.TakeMap(kValues, stored.values));
  FT_ASSIGN_OR_RETURN(
      stored.scales,
      reader.Take(kScales, stored.double_quant ? DType::kU8 : DType::kF32,
                  scales));
  if (!stored.double_quant) return stored;
  FT_ASSIGN_OR_RETURN(stored.super_scales,
                      reader.Take(kSuperScales, DType::kF32,
                                  Blocks(scales, kStoredScaleBlock)));
  FT_RETURN_IF_ERROR(reader.TakeMap(kScaleValues, stored.scale_values));
  return stored;
}

std::vector<TensorInfo> StoredNf4Infos(const std::string& name,
                                       const std::vector<int64_t>& shape,
                                       DType dtype, bool double_quant) {
  const TensorInfo weight{.name = name, .dtype = dtype, .shape = shape};
  const int64_t count = weight.numel();
  const int64_t scales = Blocks(count, kStoredNf4Block);
  std::vector<TensorInfo> infos;
  const auto add = [&](absl::string_view suffix, DType type,
                       std::vector<int64_t> dims) {
    infos.push_back({.name = absl::StrCat(name, suffix),
                     .dtype = type,
                     .shape = std::move(dims)});
  };
  add("", DType::kU8, {CodeBytes(count), 1});
  add(kScales, double_quant ? DType::kU8 : DType::kF32, {scales});
  add(kValues, DType::kF32, {16});
  if (double_quant) {
    add(kSuperScales, DType::kF32, {Blocks(scales, kStoredScaleBlock)});
    add(kScaleValues, DType::kF32, {256});
  }
  const size_t state = QuantStateJson(shape, dtype, double_quant, 0).size();
  add(kState, DType::kU8, {static_cast<int64_t>(state)});
  return infos;
}

absl::Status WriteStoredNf4(const std::string& name, const StoredNf4& weight,
                            ModelWriter& writer) {
  const auto put = [&](absl::string_view suffix,
                       std::span<const std::byte> bytes) {
    return writer.Append(absl::StrCat(name, suffix), bytes);
  };
  FT_RETURN_IF_ERROR(put("", weight.codes));
  FT_RETURN_IF_ERROR(put(kScales, weight.scales));
  FT_RETURN_IF_ERROR(put(kValues, std::as_bytes(std::span(weight.values))));
  if (weight.double_quant) {
    FT_RETURN_IF_ERROR(put(kSuperScales, weight.super_scales));
    FT_RETURN_IF_ERROR(
        put(kScaleValues, std::as_bytes(std::span(weight.scale_values))));
  }
  const std::string state = QuantStateJson(weight.shape, weight.dtype,
                                           weight.double_quant, weight.offset);
  return put(kState, std::as_bytes(std::span(state)));
}

std::string WithNf4Config(absl::string_view config_json, DType compute_dtype,
                          bool double_quant) {
  nlohmann::ordered_json config = ParsedConfig(config_json);
  config["quantization_config"] = {
      {"bnb_4bit_compute_dtype", NameInJson(compute_dtype)},
      {"bnb_4bit_quant_storage", "uint8"},
      {"bnb_4bit_quant_type", "nf4"},
      {"bnb_4bit_use_double_quant", double_quant},
      {"llm_int8_enable_fp32_cpu_offload", false},
      {"llm_int8_has_fp16_weight", false},
      {"llm_int8_skip_modules", nlohmann::ordered_json::array({"lm_head"})},
      {"llm_int8_threshold", 6.0},
      {"load_in_4bit", true},
      {"load_in_8bit", false},
      {"quant_method", "bitsandbytes"}};
  return config.dump(2, ' ', false,
                     nlohmann::ordered_json::error_handler_t::replace);
}

std::string WithoutQuantizationConfig(absl::string_view config_json,
                                      DType dtype) {
  nlohmann::ordered_json config = ParsedConfig(config_json);
  config.erase("quantization_config");
  const bool is_new_spelling = config.contains("dtype");
  if (is_new_spelling) config["dtype"] = NameInJson(dtype);
  if (!is_new_spelling || config.contains("torch_dtype")) {
    config["torch_dtype"] = NameInJson(dtype);
  }
  return config.dump(2, ' ', false,
                     nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace ft
