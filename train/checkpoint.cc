// SPDX-License-Identifier: Apache-2.0

#include "train/checkpoint.h"

#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/status.h"
#include "formats/safetensors.h"

namespace ft {
namespace {

using nlohmann::json;

constexpr int kFormatVersion = 1;
constexpr int64_t kMaxCheckpointJson = 16 << 20;
constexpr char kSelfDigest[] = "sha256";
constexpr absl::string_view kFolderPrefix = "step-";

std::string ShardName(int rank, int ranks) {
  return absl::StrFormat("shard-%05d-of-%05d.safetensors", rank, ranks);
}

absl::Status WriteShard(const std::string& path,
                        const ShardedOptimizer& optimizer) {
  std::vector<TensorBytes> tensors;
  for (const StatePiece& piece : optimizer.SavePieces()) {
    tensors.push_back(
        {.info = {.name = piece.Key(),
                  .dtype = DType::kF32,
                  .shape = {static_cast<int64_t>(piece.values.size())}},
         .bytes = std::as_bytes(piece.values)});
  }
  return WriteSafetensors(path, tensors);
}

// What ranks tell rank 0 of their file: a block of fixed size.
struct FileNote {
  int64_t bytes;
  char sha256[64];
};

absl::StatusOr<std::vector<v1::LocalFile>> GatherFiles(
    const v1::LocalFile& mine, Collective& ranks) {
  FileNote note{.bytes = mine.bytes()};
  std::memcpy(note.sha256, mine.sha256().data(), sizeof(note.sha256));
  std::vector<FileNote> notes(ranks.size());
  FT_RETURN_IF_ERROR(ranks.AllGather(std::as_writable_bytes(std::span(notes)),
                                     std::as_bytes(std::span(&note, 1))),
                     "gather of the shards' digests");
  std::vector<v1::LocalFile> files;
  for (int rank = 0; rank < ranks.size(); ++rank) {
    v1::LocalFile& file = files.emplace_back();
    file.set_path(ShardName(rank, ranks.size()));
    file.set_bytes(notes[rank].bytes);
    file.set_sha256(notes[rank].sha256, sizeof(notes[rank].sha256));
  }
  return files;
}

absl::StatusOr<v1::LocalFile> Describe(const std::string& dir,
                                       const std::string& name) {
  v1::LocalFile file;
  file.set_path(name);
  FT_ASSIGN_OR_RETURN(const int64_t bytes, FileSize(JoinPath(dir, name)));
  file.set_bytes(bytes);
  FT_ASSIGN_OR_RETURN(*file.mutable_sha256(),
                      Sha256OfFile(JoinPath(dir, name)));
  return file;
}

// The digest of checkpoint.json without the member that holds it. Objects are
// sorted and all numbers integers, so what was read is printed as it was
// written.
std::string SelfDigest(json value) {
  value.erase(kSelfDigest);
  return Sha256Hex(value.dump());
}

json TensorsJson(const Partition& partition) {
  json tensors = json::object();
  for (const Fragment& fragment : partition.fragments()) {
    tensors[fragment.name] = {{"shape", fragment.shape},
                              {"dtype", "F32"},
                              {"kinds", {kMaster, kExpAvg, kExpAvgSq}}};
  }
  return tensors;
}

json InfoJson(const CheckpointInfo& info, const Partition& partition,
              const std::vector<v1::LocalFile>& files) {
  json list = json::array();
  for (const v1::LocalFile& file : files) {
    list.push_back({{"name", file.path()},
                    {"size", file.bytes()},
                    {"sha256", file.sha256()}});
  }
  json value = {
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
      {"fingerprint", info.fingerprint},
      {"tensors", TensorsJson(partition)},
      {"files", list}};
  value[kSelfDigest] = SelfDigest(value);
  return value;
}

absl::Status Lost(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(path, ": ", what));
}

// checkpoint.json of `dir`, with the types of its members checked.
absl::StatusOr<json> ReadJson(const std::string& dir) {
  const std::string path = JoinPath(dir, kCheckpointFile);
  absl::StatusOr<std::string> text = ReadFile(path, kMaxCheckpointJson);
  if (!text.ok()) return Lost(path, text.status().message());
  json value = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return Lost(path, "is cut or no JSON");
  if (value.value(kSelfDigest, json()) != SelfDigest(value)) {
    return Lost(path, "does not have the digest that it names");
  }
  for (const char* key :
       {"format_version", "step", "ranks", "zero_stage", "lanes", "seed"}) {
    if (!value.contains(key) || !value[key].is_number_integer()) {
      return Lost(path, absl::StrCat(key, " is missing or no integer"));
    }
  }
  for (const char* key :
       {"job_id", "model_digest", "dataset_digest", "layout_sha256"}) {
    if (!value.contains(key) || !value[key].is_string()) {
      return Lost(path, absl::StrCat(key, " is missing or no string"));
    }
  }
  const bool has_cursor =
      value.contains("cursor") && value["cursor"].is_object() &&
      value["cursor"].value("pass", json()).is_number_integer() &&
      value["cursor"].value("index", json()).is_number_integer();
  if (!has_cursor) return Lost(path, "cursor is missing or wrong");
  if (!value.contains("fingerprint") || !value["fingerprint"].is_object() ||
      !value.contains("files") || !value["files"].is_array() ||
      !value.contains("tensors") || !value["tensors"].is_object()) {
    return Lost(path, "fingerprint, files or tensors is missing");
  }
  if (value["format_version"] != kFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": format version ", value["format_version"].get<int64_t>(),
        " is not ", kFormatVersion));
  }
  return value;
}

CheckpointInfo InfoOf(const json& value) {
  CheckpointInfo info{
      .job_id = value["job_id"],
      .step = value["step"],
      .ranks = value["ranks"],
      .zero_stage = value["zero_stage"],
      .lanes = value["lanes"],
      .seed = value["seed"],
      .cursor = {value["cursor"]["pass"], value["cursor"]["index"]},
      .model_digest = value["model_digest"],
      .dataset_digest = value["dataset_digest"],
      .layout_sha256 = value["layout_sha256"]};
  for (const auto& [key, text] : value["fingerprint"].items()) {
    if (text.is_string()) info.fingerprint[key] = text;
  }
  return info;
}

// Size and digest of a file against what checkpoint.json says.
absl::Status Verify(const std::string& dir, const json& file) {
  if (!file.is_object() || !file.value("name", json()).is_string() ||
      !file.value("size", json()).is_number_integer() ||
      !file.value("sha256", json()).is_string() ||
      !IsSafeRelativePath(file["name"].get<std::string>())) {
    return Lost(JoinPath(dir, kCheckpointFile), "an entry of files is wrong");
  }
  const std::string path = JoinPath(dir, file["name"].get<std::string>());
  const absl::StatusOr<int64_t> size = FileSize(path);
  if (!size.ok()) return Lost(path, "is missing");
  if (*size != file["size"].get<int64_t>()) {
    return Lost(path,
                absl::StrCat("has ", *size, " bytes, checkpoint.json says ",
                             file["size"].get<int64_t>()));
  }
  FT_ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(path));
  if (sha256 != file["sha256"].get<std::string>()) {
    return Lost(
        path,
        absl::StrCat("sha256 is ", sha256.substr(0, 8),
                     "..., checkpoint.json says ",
                     file["sha256"].get<std::string>().substr(0, 8), "..."));
  }
  return absl::OkStatus();
}

// The checkpoint's tensors against those that learn here.
absl::Status CheckTensors(const std::string& dir, const json& saved,
                          const Partition& partition) {
  const json wanted = TensorsJson(partition);
  for (const auto& [name, tensor] : wanted.items()) {
    const json found = saved.value(name, json());
    if (found != tensor) {
      return absl::FailedPreconditionError(
          absl::StrCat(dir, ": ", name, " is ", found.dump(),
                       " in the checkpoint, ", tensor.dump(), " in this job"));
    }
  }
  for (const auto& [name, tensor] : saved.items()) {
    if (!wanted.contains(name)) {
      return absl::FailedPreconditionError(absl::StrCat(
          dir, ": ", name, " is in the checkpoint, but not in this job"));
    }
  }
  return absl::OkStatus();
}

absl::Status AddPieces(const SafetensorsFile& file, SavedPieces& pieces) {
  for (const TensorView& view : file.tensors()) {
    int64_t numel = 0;
    FT_ASSIGN_OR_RETURN(StatePiece piece, ParseStateKey(view.name, numel),
                        file.path());
    if (view.dtype != DType::kF32 || view.numel() != numel ||
        reinterpret_cast<uintptr_t>(view.bytes.data()) % sizeof(float) != 0) {
      return Lost(file.path(), absl::StrCat(view.name, " has another shape"));
    }
    piece.values = {reinterpret_cast<const float*>(view.bytes.data()),
                    static_cast<size_t>(numel)};
    pieces.Add(piece);
  }
  return absl::OkStatus();
}

// The folders of steps in `dir`, the newest first.
std::map<int64_t, std::string, std::greater<>> StepFolders(
    const std::string& dir) {
  std::map<int64_t, std::string, std::greater<>> folders;
  const absl::StatusOr<std::vector<std::string>> names = ListDir(dir);
  if (!names.ok()) return folders;
  for (const std::string& name : *names) {
    absl::string_view digits = name;
    int64_t step = 0;
    if (absl::ConsumePrefix(&digits, kFolderPrefix) &&
        absl::SimpleAtoi(digits, &step) && CheckpointName(step) == name) {
      folders.emplace(step, JoinPath(dir, name));
    }
  }
  return folders;
}

}  // namespace

std::string CheckpointName(int64_t step) {
  return absl::StrFormat("%s%06d", kFolderPrefix, step);
}

absl::StatusOr<v1::CheckpointFiles> WriteCheckpoint(
    const std::string& dir, const CheckpointInfo& info,
    const ShardedOptimizer& optimizer, Collective& ranks) {
  const std::string folder = JoinPath(dir, CheckpointName(info.step));
  const std::string shard = ShardName(ranks.rank(), ranks.size());
  FT_RETURN_IF_ERROR(MakeDirs(folder));
  FT_RETURN_IF_ERROR(SyncDir(dir));
  // An older checkpoint.json must not vouch for new shards.
  if (ranks.rank() == 0) {
    FT_RETURN_IF_ERROR(RemoveFile(JoinPath(folder, kCheckpointFile)));
  }
  FT_RETURN_IF_ERROR(ranks.Barrier());
  FT_RETURN_IF_ERROR(WriteShard(JoinPath(folder, shard), optimizer));

  v1::CheckpointFiles result;
  result.set_step(info.step);
  result.set_dir(folder);
  FT_ASSIGN_OR_RETURN(*result.add_own(), Describe(folder, shard));
  FT_ASSIGN_OR_RETURN(const std::vector<v1::LocalFile> shards,
                      GatherFiles(result.own(0), ranks));
  if (ranks.rank() != 0) return result;

  const json value = InfoJson(info, optimizer.partition(), shards);
  FT_RETURN_IF_ERROR(
      WriteFileAtomic(JoinPath(folder, kCheckpointFile), value.dump(1) + "\n"));
  FT_ASSIGN_OR_RETURN(*result.add_own(), Describe(folder, kCheckpointFile));
  for (const v1::LocalFile& file : shards) *result.add_all() = file;
  *result.add_all() = result.own(1);
  return result;
}

absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(const std::string& dir) {
  FT_ASSIGN_OR_RETURN(const json value, ReadJson(dir));
  return InfoOf(value);
}

absl::StatusOr<CheckpointInfo> LoadCheckpoint(const std::string& dir,
                                              ShardedOptimizer& optimizer) {
  FT_ASSIGN_OR_RETURN(const json value, ReadJson(dir));
  FT_RETURN_IF_ERROR(
      CheckTensors(dir, value["tensors"], optimizer.partition()));
  std::vector<SafetensorsFile> files;
  SavedPieces pieces;
  for (const json& entry : value["files"]) {
    FT_RETURN_IF_ERROR(Verify(dir, entry));
    FT_ASSIGN_OR_RETURN(
        SafetensorsFile file,
        SafetensorsFile::Open(JoinPath(dir, entry["name"].get<std::string>())));
    files.push_back(std::move(file));
  }
  for (const SafetensorsFile& file : files) {
    FT_RETURN_IF_ERROR(AddPieces(file, pieces));
  }
  FT_RETURN_IF_ERROR(optimizer.LoadPieces(pieces), dir);
  const CheckpointInfo info = InfoOf(value);
  optimizer.set_steps(info.step);
  return info;
}

std::vector<std::string> ListCheckpoints(const std::string& dir) {
  std::vector<std::string> found;
  for (const auto& [step, path] : StepFolders(dir)) {
    if (Exists(JoinPath(path, kCheckpointFile))) found.push_back(path);
  }
  return found;
}

absl::Status RemoveOldCheckpoints(const std::string& dir, int64_t newest_step,
                                  int64_t keep) {
  int64_t kept = 0;
  for (const auto& [step, path] : StepFolders(dir)) {
    const bool stays = step > newest_step
                           ? Exists(JoinPath(path, kCheckpointFile))
                           : kept++ < keep;
    if (stays) continue;
    const absl::Status status = RemoveTree(path);
    // Another rank may have been faster.
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  return absl::OkStatus();
}

}  // namespace ft
