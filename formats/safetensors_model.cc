// SPDX-License-Identifier: Apache-2.0
//
// The weights of a model directory: one file, or an index and its shards.

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "common/file.h"
#include "common/regular_file.h"
#include "common/status.h"
#include "formats/json.h"
#include "formats/safetensors.h"

namespace ft {
namespace {

constexpr char kSingleName[] = "model.safetensors";
constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = int64_t{64} << 20;
constexpr size_t kMaxFiles = 10'000;

using WeightMap = std::map<std::string, std::string>;  // Tensor -> file.

// A name in this folder, so that an index cannot point elsewhere.
bool IsPlainName(const std::string& name) {
  return IsSafeRelativePath(name) && !absl::StrContains(name, '/') &&
         absl::EndsWith(name, ".safetensors");
}

absl::StatusOr<WeightMap> ReadIndex(const std::string& path) {
  FT_ASSIGN_OR_RETURN(const std::string text,
                      ReadRegularFile(path, kMaxIndexBytes));
  FT_ASSIGN_OR_RETURN(const nlohmann::json index, ParseJson(text), path);
  if (!index.is_object() || !index.contains("weight_map") ||
      !index["weight_map"].is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": weight_map: not an object"));
  }
  WeightMap map;
  std::set<std::string> files;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string() || !IsPlainName(file.get_ref<const std::string&>())) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": weight_map: ", JsonString(tensor),
                       ": not the name of a .safetensors file in this folder"));
    }
    map[tensor] = file.get<std::string>();
    files.insert(map[tensor]);
  }
  if (files.empty() || files.size() > kMaxFiles) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": weight_map: names ", files.size(),
                     " files, wanted 1 to ", kMaxFiles));
  }
  return map;
}

std::vector<std::string> FilesOf(const WeightMap& map) {
  std::set<std::string> files;
  for (const auto& [tensor, file] : map) files.insert(file);
  return {files.begin(), files.end()};
}

absl::Status NoWeights(const std::string& dir) {
  return absl::NotFoundError(absl::StrCat(dir, ": neither ", kSingleName,
                                          " nor ", kIndexName, " is there"));
}

// The index and the files must agree about every tensor.
absl::Status CheckAgainstIndex(const std::string& index_path,
                               const WeightMap& map,
                               const std::vector<SafetensorsFile>& files) {
  size_t found = 0;
  for (const SafetensorsFile& file : files) {
    for (const TensorView& tensor : file.tensors()) {
      const auto entry = map.find(tensor.name);
      if (entry == map.end() || entry->second != BaseName(file.path())) {
        return absl::InvalidArgumentError(absl::StrCat(
            file.path(), ": holds ", tensor.name, ", which the index ",
            entry == map.end() ? "does not name"
                               : absl::StrCat("says is in ", entry->second)));
      }
      ++found;
    }
  }
  if (found == map.size()) return absl::OkStatus();
  for (const auto& [tensor, name] : map) {
    const bool held = std::any_of(
        files.begin(), files.end(),
        [&](const SafetensorsFile& file) { return file.Find(tensor); });
    if (!held) {
      return absl::InvalidArgumentError(absl::StrCat(
          index_path, ": ", tensor, " is not in ", name, " as it says"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> WeightFileNames(
    const std::string& dir) {
  if (Exists(JoinPath(dir, kSingleName))) {
    return std::vector<std::string>{kSingleName};
  }
  const std::string index_path = JoinPath(dir, kIndexName);
  if (!Exists(index_path)) return NoWeights(dir);
  FT_ASSIGN_OR_RETURN(const WeightMap map, ReadIndex(index_path));
  std::vector<std::string> names = FilesOf(map);
  names.push_back(kIndexName);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<SafetensorsModel> SafetensorsModel::Open(
    const std::string& dir) {
  SafetensorsModel model;
  model.dir_ = dir;
  const std::string index_path = JoinPath(dir, kIndexName);
  const bool is_single = Exists(JoinPath(dir, kSingleName));
  WeightMap map;
  if (is_single) {
    model.file_names_ = {kSingleName};
  } else {
    if (!Exists(index_path)) return NoWeights(dir);
    FT_ASSIGN_OR_RETURN(map, ReadIndex(index_path));
    model.file_names_ = FilesOf(map);
  }
  for (const std::string& name : model.file_names_) {
    FT_ASSIGN_OR_RETURN(SafetensorsFile file,
                        SafetensorsFile::Open(JoinPath(dir, name)));
    model.files_.push_back(std::move(file));
  }
  if (!is_single) {
    FT_RETURN_IF_ERROR(CheckAgainstIndex(index_path, map, model.files_));
  }
  return model;
}

const TensorView* SafetensorsModel::Find(absl::string_view name) const {
  for (const SafetensorsFile& file : files_) {
    if (const TensorView* tensor = file.Find(name)) return tensor;
  }
  return nullptr;
}

absl::StatusOr<const TensorView*> SafetensorsModel::Get(
    absl::string_view name) const {
  if (const TensorView* tensor = Find(name)) return tensor;
  return absl::NotFoundError(
      absl::StrCat(dir_, ": the weights hold no tensor ", name));
}

std::vector<const TensorView*> SafetensorsModel::tensors() const {
  std::vector<const TensorView*> all;
  for (const SafetensorsFile& file : files_) {
    for (const TensorView& tensor : file.tensors()) all.push_back(&tensor);
  }
  std::sort(all.begin(), all.end(),
            [](const auto* a, const auto* b) { return a->name < b->name; });
  return all;
}

void SafetensorsModel::Forget(const TensorView& tensor) const {
  for (const SafetensorsFile& file : files_) {
    if (file.Find(tensor.name) == &tensor) file.Forget(tensor);
  }
}

}  // namespace ft
