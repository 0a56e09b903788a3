// SPDX-License-Identifier: Apache-2.0

#include "train/checkpoint_file.h"

#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"
#include "formats/json.h"

namespace ft {
namespace {

using nlohmann::json;

constexpr int kFormatVersion = 1;
constexpr char kSelfDigest[] = "sha256";
// What we write is four deep.
constexpr int kMaxDepth = 8;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

absl::Status Lost(absl::string_view what) { return absl::DataLossError(what); }

// The digest of the object without the member that holds it. Objects are sorted
// and all numbers integers, so what was read is printed as it was written.
std::string SelfDigest(json value) {
  value.erase(kSelfDigest);
  return Sha256Hex(value.dump());
}

// Null if there is none.
const json* Member(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

absl::StatusOr<int64_t> Int(const json& object, const char* key, int64_t low,
                            int64_t high) {
  const json* value = Member(object, key);
  if (value == nullptr || !value->is_number_integer()) {
    return Lost(absl::StrCat(key, " is missing or no integer"));
  }
  // An unsigned one over 2^63 would come out negative.
  const bool is_huge = value->is_number_unsigned() &&
                       value->get<uint64_t>() > static_cast<uint64_t>(kMost);
  const int64_t number = is_huge ? kMost : value->get<int64_t>();
  if (is_huge || number < low || number > high) {
    return Lost(absl::StrCat(key, " is ", value->dump(), ", not in [", low,
                             ", ", high, "]"));
  }
  return number;
}

absl::StatusOr<std::string> Text(const json& object, const char* key) {
  const json* value = Member(object, key);
  if (value == nullptr || !value->is_string()) {
    return Lost(absl::StrCat(key, " is missing or no string"));
  }
  return value->get<std::string>();
}

absl::StatusOr<Cursor> ReadCursor(const json& root) {
  const json* value = Member(root, "cursor");
  if (value == nullptr || !value->is_object()) {
    return Lost("cursor is missing or wrong");
  }
  Cursor cursor;
  FT_ASSIGN_OR_RETURN(cursor.pass, Int(*value, "pass", 0, kMost), "cursor");
  FT_ASSIGN_OR_RETURN(cursor.index, Int(*value, "index", 0, kMost), "cursor");
  return cursor;
}

absl::StatusOr<CheckpointInfo> ReadInfo(const json& root) {
  constexpr int64_t kMostRanks = 1 << 20;
  CheckpointInfo info;
  FT_ASSIGN_OR_RETURN(info.step, Int(root, "step", 0, kMost));
  FT_ASSIGN_OR_RETURN(info.ranks, Int(root, "ranks", 1, kMostRanks));
  FT_ASSIGN_OR_RETURN(info.zero_stage, Int(root, "zero_stage", 0, 3));
  FT_ASSIGN_OR_RETURN(info.lanes, Int(root, "lanes", 1, kMostRanks));
  FT_ASSIGN_OR_RETURN(
      info.seed, Int(root, "seed", std::numeric_limits<int64_t>::min(), kMost));
  FT_ASSIGN_OR_RETURN(info.job_id, Text(root, "job_id"));
  FT_ASSIGN_OR_RETURN(info.model_digest, Text(root, "model_digest"));
  FT_ASSIGN_OR_RETURN(info.dataset_digest, Text(root, "dataset_digest"));
  FT_ASSIGN_OR_RETURN(info.layout_sha256, Text(root, "layout_sha256"));
  FT_ASSIGN_OR_RETURN(info.cursor, ReadCursor(root));
  const json* fingerprint = Member(root, "fingerprint");
  if (fingerprint == nullptr || !fingerprint->is_object()) {
    return Lost("fingerprint is missing or no object");
  }
  for (const auto& [key, text] : fingerprint->items()) {
    if (text.is_string()) info.fingerprint[key] = text;
  }
  return info;
}

absl::Status CheckVersion(const json& root) {
  FT_ASSIGN_OR_RETURN(const int64_t version,
                      Int(root, "format_version", 0, kMost));
  if (version == kFormatVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("format version ", version, " is not ", kFormatVersion));
}

absl::StatusOr<v1::LocalFile> ReadFileEntry(const json& entry) {
  if (!entry.is_object()) return Lost("an entry of files is no object");
  v1::LocalFile file;
  FT_ASSIGN_OR_RETURN(*file.mutable_path(), Text(entry, "name"), "files");
  FT_ASSIGN_OR_RETURN(const int64_t bytes, Int(entry, "size", 0, kMost),
                      "files");
  FT_ASSIGN_OR_RETURN(*file.mutable_sha256(), Text(entry, "sha256"), "files");
  file.set_bytes(bytes);
  if (!IsSafeRelativePath(file.path()) || !IsSha256Hex(file.sha256())) {
    return Lost("an entry of files has no safe name or no digest");
  }
  return file;
}

absl::StatusOr<std::vector<v1::LocalFile>> ReadFiles(const json& root) {
  const json* list = Member(root, "files");
  if (list == nullptr || !list->is_array() ||
      static_cast<int64_t>(list->size()) > kMaxCheckpointFiles) {
    return Lost(absl::StrCat("files is no list of at most ",
                             kMaxCheckpointFiles, " entries"));
  }
  std::vector<v1::LocalFile> files;
  for (const json& entry : *list) {
    FT_ASSIGN_OR_RETURN(v1::LocalFile file, ReadFileEntry(entry));
    files.push_back(std::move(file));
  }
  return files;
}

absl::StatusOr<json> ParseObject(absl::string_view text) {
  if (static_cast<int64_t>(text.size()) > kMaxCheckpointJson) {
    return Lost(absl::StrCat("has ", text.size(), " bytes; the limit is ",
                             kMaxCheckpointJson));
  }
  absl::StatusOr<json> root = ParseJson(text, kMaxDepth);
  if (!root.ok()) {
    return Lost(absl::StrCat("is cut or no JSON: ",
                             absl::string_view(root.status().message())));
  }
  if (!root->is_object()) return Lost("is no JSON object");
  return root;
}

// What a checkpoint and a local snapshot say alike.
json InfoJson(const CheckpointInfo& info) {
  return {
      {"format_version", kFormatVersion},
      {"job_id", info.job_id},
      {"step", info.step},
      {"ranks", info.ranks},
      {"zero_stage", info.zero_stage},
      {"lanes", info.lanes},
      {"seed", info.seed},
      {"cursor", {{"pass", info.cursor.pass}, {"index", info.cursor.index}}},
      {"model_digest", info.model_digest},
      {"dataset_digest", info.dataset_digest},
      {"layout_sha256", info.layout_sha256},
      {"fingerprint", info.fingerprint}};
}

}  // namespace

std::string CheckpointJson(const CheckpointFile& file) {
  json list = json::array();
  for (const v1::LocalFile& entry : file.files) {
    list.push_back({{"name", entry.path()},
                    {"size", entry.bytes()},
                    {"sha256", entry.sha256()}});
  }
  json root = InfoJson(file.info);
  root["tensors"] = file.tensors;
  root["files"] = list;
  root[kSelfDigest] = SelfDigest(root);
  return root.dump(1) + "\n";
}

absl::StatusOr<CheckpointFile> ParseCheckpointJson(absl::string_view text) {
  FT_ASSIGN_OR_RETURN(const json root, ParseObject(text));
  const json* digest = Member(root, kSelfDigest);
  if (digest == nullptr || *digest != SelfDigest(root)) {
    return Lost("does not have the digest that it names");
  }
  FT_RETURN_IF_ERROR(CheckVersion(root));
  CheckpointFile file;
  FT_ASSIGN_OR_RETURN(file.info, ReadInfo(root));
  const json* tensors = Member(root, "tensors");
  if (tensors == nullptr || !tensors->is_object()) {
    return Lost("tensors is missing or no object");
  }
  file.tensors = *tensors;
  FT_ASSIGN_OR_RETURN(file.files, ReadFiles(root));
  return file;
}

std::string SerializeInfo(const CheckpointInfo& info) {
  return InfoJson(info).dump();
}

absl::StatusOr<CheckpointInfo> ParseInfo(absl::string_view text) {
  FT_ASSIGN_OR_RETURN(const json root, ParseObject(text));
  FT_RETURN_IF_ERROR(CheckVersion(root));
  return ReadInfo(root);
}

}  // namespace ft
