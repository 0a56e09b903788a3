// SPDX-License-Identifier: Apache-2.0
//
// A LoRA adapter as PEFT writes it: adapter_config.json, and the names of the
// tensors in adapter_model.safetensors. y = W x + scale B A x
// (arXiv:2106.09685).

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/model_spec.h"
#include "formats/safetensors.h"

namespace ft {

inline constexpr char kAdapterConfigName[] = "adapter_config.json";
inline constexpr char kAdapterWeightsName[] = "adapter_model.safetensors";

struct AdapterConfig {
  std::string base_model_name_or_path;
  int64_t lora_rank = 0;
  double lora_alpha = 0;
  double lora_dropout = 0;
  // Kinds of linears ("q_proj") or whole module names; sorted when written.
  std::vector<std::string> target_modules;
  bool use_rslora = false;
  bool use_dora = false;
  std::vector<std::string> modules_to_save;

  // alpha / r, or alpha / sqrt(r) with rsLoRA.
  double scale() const;
};

// Sorted keys, indent 2, no newline at the end, as PEFT writes it.
std::string AdapterConfigJson(const AdapterConfig& config);

// INVALID_ARGUMENT: not JSON, or a key has another type or is out of range.
// UNIMPLEMENTED: another peft_type, or a variant that would change the
// arithmetic and that we do not have (patterns, biases, replication). Keys
// without meaning to us are told in `warnings`, if given.
absl::StatusOr<AdapterConfig> ParseAdapterConfig(
    absl::string_view json, std::vector<std::string>* warnings = nullptr);

// What the weights' file says of the base beside "format": how its linears were
// quantised while the adapter was trained. adapter_config.json has no key for
// it, and what PEFT does not know it warns of.
std::map<std::string, std::string> AdapterMetadata(
    const std::optional<Nf4Quantization>& base);

// Nothing: the base was not quantised, or nobody says. UNIMPLEMENTED: in a way
// that we do not have.
absl::StatusOr<std::optional<Nf4Quantization>> BaseQuantizationOf(
    const std::map<std::string, std::string>& metadata);

// An adapter's directory.
struct PeftAdapter {
  AdapterConfig config;
  SafetensorsFile weights;
  std::optional<Nf4Quantization> base_quantization;
};

// NOT_FOUND: a file is missing. INVALID_ARGUMENT, UNIMPLEMENTED: as
// ParseAdapterConfig and SafetensorsFile::Open; DoRA, modules_to_save. The
// message begins with the path.
absl::StatusOr<PeftAdapter> OpenPeftAdapter(const std::string& dir);

// "base_model.model.<module>.lora_A.weight": [r, in], and lora_B: [out, r].
std::string LoraAName(absl::string_view module);
std::string LoraBName(absl::string_view module);

// Whether `target_modules` names the linear `module`: it is equal to an entry,
// or ends with "." and an entry, as PEFT matches.
bool IsTarget(const std::vector<std::string>& target_modules,
              absl::string_view module);

// INVALID_ARGUMENT: an entry that names no linear of the model; the message
// lists the kinds there are.
absl::Status CheckTargets(const std::vector<std::string>& target_modules,
                          const ModelSpec& spec);

}  // namespace ft
