// SPDX-License-Identifier: Apache-2.0

#include "formats/peft_adapter.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/file.h"
#include "common/regular_file.h"
#include "common/status.h"
#include "formats/config_reader.h"
#include "formats/json.h"

namespace ft {
namespace {

constexpr absl::string_view kPrefix = "base_model.model.";

// In the metadata of the weights.
constexpr char kBaseKey[] = "base_quantization";
constexpr char kNf4[] = "nf4";
constexpr char kNf4Double[] = "nf4, double_quant";

// Set, these would change what the adapter computes.
constexpr const char* kMustBeUnset[] = {
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "kasa_config",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_ga_config",
    "monteclora_config",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "velora_config",
};
constexpr const char* kMustBeFalse[] = {"fan_in_fan_out", "lora_bias",
                                        "use_qalora"};
// How the weights began, and who wrote them: of no account for reading.
constexpr const char* kNoAccount[] = {"auto_mapping",   "ensure_weight_tying",
                                      "inference_mode", "megatron_config",
                                      "megatron_core",  "peft_version",
                                      "revision",       "qalora_group_size"};

void RefuseVariants(ConfigReader& reader) {
  for (const char* key : kMustBeUnset) {
    const nlohmann::json* value = reader.Find(key);
    const bool is_unset = value == nullptr || value->empty() ||
                          (value->is_boolean() && !value->get<bool>());
    if (!is_unset) reader.Unsupported(key, "is not supported yet; unset it");
  }
  for (const char* key : kMustBeFalse) {
    if (reader.Bool(key, false)) {
      reader.Unsupported(key, "true is not supported yet");
    }
  }
  const std::string bias = reader.String("bias", "none");
  if (bias != "none") {
    reader.Unsupported("bias", absl::StrCat(JsonString(bias),
                                            " is not supported yet; "
                                            "supported: none"));
  }
  // PiSSA and its kin change the base when they are loaded.
  const nlohmann::json* init = reader.Find("init_lora_weights");
  if (init != nullptr && init->is_string() &&
      !absl::EqualsIgnoreCase(init->get<std::string>(), "gaussian")) {
    reader.Unsupported("init_lora_weights",
                       absl::StrCat(init->dump(), " is not supported yet"));
  }
}

absl::Status CheckType(ConfigReader& reader) {
  const std::string type = reader.String("peft_type", "");
  FT_RETURN_IF_ERROR(reader.Verdict());
  if (type == "LORA") return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(
      "peft_type: ", JsonString(type), " is not supported; supported: LORA"));
}

}  // namespace

double AdapterConfig::scale() const {
  const double rank = static_cast<double>(lora_rank);
  return lora_alpha / (use_rslora ? std::sqrt(rank) : rank);
}

std::string AdapterConfigJson(const AdapterConfig& config) {
  std::vector<std::string> targets = config.target_modules;
  std::sort(targets.begin(), targets.end());
  nlohmann::json json;  // Its keys are sorted.
  json["alpha_pattern"] = nlohmann::json::object();
  json["base_model_name_or_path"] = config.base_model_name_or_path;
  json["bias"] = "none";
  json["exclude_modules"] = nullptr;
  json["fan_in_fan_out"] = false;
  json["inference_mode"] = true;
  json["init_lora_weights"] = true;
  json["layers_to_transform"] = nullptr;
  // An integer where it is one, as people write it.
  if (config.lora_alpha == std::floor(config.lora_alpha) &&
      std::abs(config.lora_alpha) < 1e15) {
    json["lora_alpha"] = static_cast<int64_t>(config.lora_alpha);
  } else {
    json["lora_alpha"] = config.lora_alpha;
  }
  json["lora_dropout"] = config.lora_dropout;
  json["modules_to_save"] = nullptr;
  if (!config.modules_to_save.empty()) {
    json["modules_to_save"] = config.modules_to_save;
  }
  json["peft_type"] = "LORA";
  json["r"] = config.lora_rank;
  json["rank_pattern"] = nlohmann::json::object();
  json["target_modules"] = targets;
  json["task_type"] = "CAUSAL_LM";
  json["use_dora"] = config.use_dora;
  json["use_rslora"] = config.use_rslora;
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::StatusOr<AdapterConfig> ParseAdapterConfig(
    absl::string_view text, std::vector<std::string>* warnings) {
  FT_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text));
  if (!json.is_object()) {
    return absl::InvalidArgumentError("not a JSON object");
  }
  ConfigReader reader(json);
  FT_RETURN_IF_ERROR(CheckType(reader));
  AdapterConfig config;
  config.base_model_name_or_path = reader.String("base_model_name_or_path", "");
  config.lora_rank = reader.Int("r", std::nullopt, 1, 65536);
  config.lora_alpha = reader.Number("lora_alpha", 8.0, -1e6, 1e6);
  config.lora_dropout = reader.Number("lora_dropout", 0.0, 0.0, 1.0);
  config.target_modules = reader.Strings("target_modules");
  config.use_rslora = reader.Bool("use_rslora", false);
  config.use_dora = reader.Bool("use_dora", false);
  config.modules_to_save = reader.Strings("modules_to_save");
  if (config.target_modules.empty()) {
    reader.Fault("target_modules", "names no module");
  }
  reader.String("task_type", "");
  RefuseVariants(reader);
  for (const char* key : kNoAccount) reader.Ignore(key);
  FT_RETURN_IF_ERROR(reader.Verdict());
  if (warnings != nullptr) {
    for (const std::string& key : reader.UnreadKeys()) {
      warnings->push_back(absl::StrCat(key, ": has no meaning here; ignored"));
    }
  }
  return config;
}

std::map<std::string, std::string> AdapterMetadata(
    const std::optional<Nf4Quantization>& base) {
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (base) metadata[kBaseKey] = base->double_quant ? kNf4Double : kNf4;
  return metadata;
}

absl::StatusOr<std::optional<Nf4Quantization>> BaseQuantizationOf(
    const std::map<std::string, std::string>& metadata) {
  const auto found = metadata.find(kBaseKey);
  if (found == metadata.end()) return std::nullopt;
  if (found->second == kNf4) return Nf4Quantization{.double_quant = false};
  if (found->second == kNf4Double) return Nf4Quantization{.double_quant = true};
  return absl::UnimplementedError(absl::StrCat(
      kBaseKey, ": \"", absl::Utf8SafeCHexEscape(found->second.substr(0, 60)),
      "\" is not supported; supported: ", kNf4, "; ", kNf4Double));
}

absl::StatusOr<PeftAdapter> OpenPeftAdapter(const std::string& dir) {
  const std::string config_path = JoinPath(dir, kAdapterConfigName);
  FT_ASSIGN_OR_RETURN(const std::string json,
                      ReadRegularFile(config_path, kMaxConfigBytes));
  FT_ASSIGN_OR_RETURN(AdapterConfig config, ParseAdapterConfig(json),
                      config_path);
  if (config.use_dora || !config.modules_to_save.empty()) {
    return absl::UnimplementedError(
        absl::StrCat(dir, ": DoRA and modules_to_save are not supported yet"));
  }
  FT_ASSIGN_OR_RETURN(SafetensorsFile weights, SafetensorsFile::Open(JoinPath(
                                                   dir, kAdapterWeightsName)));
  FT_ASSIGN_OR_RETURN(const std::optional<Nf4Quantization> base,
                      BaseQuantizationOf(weights.metadata()), weights.path());
  return PeftAdapter{.config = std::move(config),
                     .weights = std::move(weights),
                     .base_quantization = base};
}

std::string LoraAName(absl::string_view module) {
  return absl::StrCat(kPrefix, module, ".lora_A.weight");
}

std::string LoraBName(absl::string_view module) {
  return absl::StrCat(kPrefix, module, ".lora_B.weight");
}

absl::Status CheckTargets(const std::vector<std::string>& target_modules,
                          const ModelSpec& spec) {
  std::set<std::string> unmatched(target_modules.begin(), target_modules.end());
  std::set<std::string> kinds;
  for (const LinearSpec& linear : spec.Linears()) {
    kinds.insert(linear.kind);
    std::erase_if(unmatched, [&](const std::string& target) {
      return IsTarget({target}, linear.module);
    });
  }
  if (unmatched.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("no linear is named ", absl::StrJoin(unmatched, ", "),
                   "; this model has ", absl::StrJoin(kinds, ", ")));
}

bool IsTarget(const std::vector<std::string>& target_modules,
              absl::string_view module) {
  return std::any_of(target_modules.begin(), target_modules.end(),
                     [&](const std::string& target) {
                       return module == target ||
                              absl::EndsWith(module, "." + target);
                     });
}

}  // namespace ft
