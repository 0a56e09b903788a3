// SPDX-License-Identifier: Apache-2.0

#include "formats/hf_directory.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/regular_file.h"
#include "common/status.h"
#include "formats/bitsandbytes.h"

namespace ft {
namespace {

constexpr size_t kMaxFaultsShown = 20;

bool IsFloating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 ||
         dtype == DType::kBF16 || dtype == DType::kF64;
}

std::string Shown(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Tensors that files of this family may hold beside the parameters.
bool MayBeIgnored(const ModelSpec& spec, absl::string_view name) {
  return (spec.tie_word_embeddings && name == "lm_head.weight") ||
         absl::EndsWith(name, "rotary_emb.inv_freq");
}

// A weight of a linear that is stored in 4 bits.
void CheckStored(const ModelSpec& spec, const SafetensorsModel& weights,
                 const ParameterSpec& parameter,
                 std::vector<std::string>& faults) {
  if (!spec.quantization) {
    faults.push_back(
        absl::StrCat(parameter.name,
                     ": is stored in 4 bits, but config.json has no "
                     "quantization_config; take the config.json that belongs "
                     "to these weights"));
    return;
  }
  const absl::StatusOr<StoredNf4> stored =
      ReadStoredNf4(weights, parameter.name, parameter.shape);
  if (!stored.ok()) faults.emplace_back(stored.status().message());
}

// Explains a folder without safetensors: most often the weights are pickles.
absl::Status ExplainMissingWeights(const std::string& dir,
                                   absl::Status missing) {
  if (!absl::IsNotFound(missing)) return missing;
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(dir));
  for (const std::string& name : names) {
    FT_RETURN_IF_ERROR(RefusePickle(JoinPath(dir, name)));
  }
  return missing;
}

}  // namespace

absl::Status CheckWeights(const ModelSpec& spec,
                          const SafetensorsModel& weights) {
  std::vector<std::string> faults;
  absl::flat_hash_set<std::string> known;
  for (const ParameterSpec& parameter : spec.Parameters()) {
    if (parameter.role == ParameterRole::kLinearWeight &&
        IsStoredNf4(weights, parameter.name)) {
      for (std::string& name : StoredNf4Names(parameter.name)) {
        known.insert(std::move(name));
      }
      CheckStored(spec, weights, parameter, faults);
      continue;
    }
    known.insert(parameter.name);
    const TensorView* tensor = weights.Find(parameter.name);
    if (tensor == nullptr) {
      faults.push_back(absl::StrCat(parameter.name, ": is missing"));
    } else if (tensor->shape != parameter.shape) {
      faults.push_back(absl::StrCat(parameter.name, ": shape is ",
                                    Shown(tensor->shape), ", the config says ",
                                    Shown(parameter.shape)));
    } else if (!IsFloating(tensor->dtype)) {
      faults.push_back(absl::StrCat(parameter.name, ": element type ",
                                    NameOf(tensor->dtype),
                                    ", wanted F32, F16, BF16 or F64"));
    }
  }
  for (const TensorView* tensor : weights.tensors()) {
    if (!known.contains(tensor->name) && !MayBeIgnored(spec, tensor->name)) {
      faults.push_back(absl::StrCat(tensor->name, ": is no parameter of a ",
                                    spec.model_type));
    }
  }
  if (faults.empty()) return absl::OkStatus();
  const size_t count = faults.size();
  faults.resize(std::min(count, kMaxFaultsShown));
  if (count > faults.size()) {
    faults.push_back(absl::StrCat("and ", count - kMaxFaultsShown, " more"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("weights: ", absl::StrJoin(faults, "; ")));
}

absl::StatusOr<HfDirectory> OpenHfDirectory(const std::string& dir) {
  if (!IsDirectory(dir)) {
    return absl::NotFoundError(absl::StrCat(dir, ": no such directory"));
  }
  std::vector<std::string> warnings;
  FT_ASSIGN_OR_RETURN(ModelSpec spec,
                      ReadModelSpec(JoinPath(dir, "config.json"), &warnings));
  absl::StatusOr<SafetensorsModel> weights = SafetensorsModel::Open(dir);
  if (!weights.ok()) return ExplainMissingWeights(dir, weights.status());
  FT_RETURN_IF_ERROR(CheckWeights(spec, *weights), dir);
  return HfDirectory{.path = dir,
                     .spec = std::move(spec),
                     .warnings = std::move(warnings),
                     .weights = *std::move(weights)};
}

absl::StatusOr<std::vector<std::string>> ModelFileNames(
    const std::string& dir) {
  FT_ASSIGN_OR_RETURN(std::vector<std::string> names, WeightFileNames(dir));
  names.push_back("config.json");
  for (const char* name :
       {"generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "chat_template.jinja"}) {
    if (Exists(JoinPath(dir, name))) names.push_back(name);
  }
  // Read only where there is no tokenizer.json.
  if (!Exists(JoinPath(dir, "tokenizer.json")) &&
      Exists(JoinPath(dir, "tokenizer.model"))) {
    names.push_back("tokenizer.model");
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    FT_RETURN_IF_ERROR(CheckIsRegularFile(JoinPath(dir, name)));
  }
  return names;
}

std::string ModelDigestOf(std::vector<FileDigest> files) {
  std::sort(
      files.begin(), files.end(),
      [](const FileDigest& a, const FileDigest& b) { return a.name < b.name; });
  Sha256 sum;
  for (const FileDigest& file : files) {
    sum.Update(absl::StrCat(file.sha256, "  ", file.name, "\n"));
  }
  return sum.FinishHex();
}

absl::StatusOr<std::string> ModelDigest(const std::string& dir) {
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                      ModelFileNames(dir));
  std::vector<FileDigest> files;
  for (const std::string& name : names) {
    FT_ASSIGN_OR_RETURN(std::string sha256, Sha256OfFile(JoinPath(dir, name)));
    files.push_back({.name = name, .sha256 = std::move(sha256)});
  }
  return ModelDigestOf(std::move(files));
}

}  // namespace ft
