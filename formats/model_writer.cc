// SPDX-License-Identifier: Apache-2.0

#include "formats/model_writer.h"

#include <map>

#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/file.h"
#include "common/status.h"
#include "formats/json.h"

namespace ft {
namespace {

// Which tensors lie together.
std::vector<std::vector<TensorInfo>> Shards(
    const std::vector<TensorInfo>& tensors, int64_t max_shard_bytes) {
  std::vector<std::vector<TensorInfo>> shards(1);
  int64_t filled = 0;
  for (const TensorInfo& tensor : tensors) {
    const int64_t bytes = tensor.size_bytes();
    if (filled > 0 && bytes > max_shard_bytes - filled) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(tensor);
    filled += bytes;
  }
  return shards;
}

}  // namespace

absl::StatusOr<ModelWriter> ModelWriter::Create(
    const std::string& dir, const std::vector<TensorInfo>& tensors,
    int64_t max_shard_bytes) {
  const std::vector<std::vector<TensorInfo>> shards =
      Shards(tensors, max_shard_bytes);
  ModelWriter writer;
  writer.dir_ = dir;
  for (size_t i = 0; i < shards.size(); ++i) {
    writer.file_names_.push_back(
        shards.size() == 1 ? "model.safetensors"
                           : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                             i + 1, shards.size()));
    for (const TensorInfo& tensor : shards[i]) {
      writer.total_bytes_ += tensor.size_bytes();
      if (!writer.file_of_.emplace(tensor.name, i).second) {
        return absl::InvalidArgumentError(
            absl::StrCat(dir, ": tensor ", tensor.name, " stands twice"));
      }
    }
    FT_ASSIGN_OR_RETURN(SafetensorsWriter file,
                        SafetensorsWriter::Create(
                            JoinPath(dir, writer.file_names_[i]), shards[i]));
    writer.files_.push_back(std::move(file));
  }
  return writer;
}

absl::Status ModelWriter::Append(absl::string_view name,
                                 std::span<const std::byte> bytes) {
  const auto found = file_of_.find(name);
  FT_CHECK(found != file_of_.end());
  return files_[found->second].Append(name, bytes);
}

absl::Status ModelWriter::Finish() {
  for (SafetensorsWriter& file : files_) FT_RETURN_IF_ERROR(file.Finish());
  if (files_.size() == 1) return absl::OkStatus();
  const std::map<std::string, size_t> sorted(file_of_.begin(), file_of_.end());
  nlohmann::ordered_json index;
  index["metadata"] = {{"total_size", total_bytes_}};
  for (const auto& [name, file] : sorted) {
    index["weight_map"][name] = file_names_[file];
  }
  return WriteFileAtomic(JoinPath(dir_, "model.safetensors.index.json"),
                         index.dump(2) + "\n");
}

}  // namespace ft
