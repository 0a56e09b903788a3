// SPDX-License-Identifier: Apache-2.0

#include "train/checkpoint.h"

#include <cerrno>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/digest.h"
#include "common/failpoint.h"
#include "common/file.h"
#include "common/no_space.h"
#include "common/status.h"
#include "formats/safetensors.h"
#include "train/local_file.h"

namespace ft {
namespace {

using nlohmann::json;

constexpr absl::string_view kFolderPrefix = "step-";

std::string ShardName(int rank, int ranks) {
  return absl::StrFormat("shard-%05d-of-%05d.safetensors", rank, ranks);
}

DType DTypeOf(absl::string_view kind) {
  return StateElementBytes(kind) == 1 ? DType::kU8 : DType::kF32;
}

absl::Status WriteShard(const std::string& path,
                        const ShardedOptimizer& optimizer) {
  std::vector<TensorBytes> tensors;
  for (const StatePiece& piece : optimizer.SavePieces()) {
    tensors.push_back({.info = {.name = piece.Key(),
                                .dtype = DTypeOf(piece.kind),
                                .shape = {piece.numel()}},
                       .bytes = piece.bytes});
  }
  return WriteSafetensors(path, tensors);
}

// What ranks tell rank 0 of their file: a block of fixed size. `bytes` below 0:
// its disk is full.
struct FileNote {
  int64_t bytes;
  char sha256[64];
};

// A full disk of one is told to all, so that none waits for a rank that gave
// up.
absl::StatusOr<std::vector<v1::LocalFile>> GatherFiles(
    const absl::StatusOr<v1::LocalFile>& mine, Collective& ranks) {
  if (!mine.ok() && !IsNoSpace(mine.status())) return mine.status();
  FileNote note{.bytes = -1};
  if (mine.ok()) {
    note.bytes = mine->bytes();
    std::memcpy(note.sha256, mine->sha256().data(), sizeof(note.sha256));
  }
  std::vector<FileNote> notes(ranks.size());
  FT_RETURN_IF_ERROR(ranks.AllGather(std::as_writable_bytes(std::span(notes)),
                                     std::as_bytes(std::span(&note, 1))),
                     "gather of the shards' digests");
  std::vector<v1::LocalFile> files;
  for (int rank = 0; rank < ranks.size(); ++rank) {
    if (notes[rank].bytes < 0) {
      return mine.ok() ? ErrnoStatus(ENOSPC, absl::StrCat("rank ", rank))
                       : mine.status();
    }
    v1::LocalFile& file = files.emplace_back();
    file.set_path(ShardName(rank, ranks.size()));
    file.set_bytes(notes[rank].bytes);
    file.set_sha256(notes[rank].sha256, sizeof(notes[rank].sha256));
  }
  return files;
}

// The same for the last file, which is rank 0's alone.
absl::Status AgreeOnSpace(const absl::Status& mine, Collective& ranks) {
  if (!mine.ok() && !IsNoSpace(mine)) return mine;
  const auto is_full = static_cast<uint8_t>(!mine.ok());
  std::vector<uint8_t> all(ranks.size());
  FT_RETURN_IF_ERROR(ranks.AllGather(std::as_writable_bytes(std::span(all)),
                                     std::as_bytes(std::span(&is_full, 1))),
                     "whether checkpoint.json is written");
  if (!mine.ok() || all[0] == 0) return mine;
  return ErrnoStatus(ENOSPC, "rank 0");
}

json TensorsJson(const ShardedOptimizer& optimizer) {
  json tensors = json::object();
  for (const Fragment& fragment : optimizer.partition().fragments()) {
    json kinds = json::array();
    for (const MomentKind& kind : optimizer.KindsOf(fragment)) {
      kinds.push_back(kind.kind);
    }
    tensors[fragment.name] = {
        {"shape", fragment.shape}, {"dtype", "F32"}, {"kinds", kinds}};
  }
  return tensors;
}

absl::Status Lost(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(path, ": ", what));
}

absl::StatusOr<CheckpointFile> ReadCheckpointFile(const std::string& dir) {
  const std::string path = JoinPath(dir, kCheckpointFile);
  absl::StatusOr<std::string> text = ReadFile(path, kMaxCheckpointJson);
  if (!text.ok()) return Lost(path, text.status().message());
  FT_ASSIGN_OR_RETURN(CheckpointFile file, ParseCheckpointJson(*text), path);
  return file;
}

// Size and digest of a file against what checkpoint.json says.
absl::Status Verify(const std::string& dir, const v1::LocalFile& file) {
  const std::string path = JoinPath(dir, file.path());
  const absl::StatusOr<int64_t> size = FileSize(path);
  if (!size.ok()) return Lost(path, "is missing");
  if (*size != file.bytes()) {
    return Lost(path,
                absl::StrCat("has ", *size, " bytes, checkpoint.json says ",
                             file.bytes()));
  }
  FT_ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(path));
  if (sha256 != file.sha256()) {
    return Lost(path, absl::StrCat("sha256 is ", sha256.substr(0, 8),
                                   "..., checkpoint.json says ",
                                   file.sha256().substr(0, 8), "..."));
  }
  return absl::OkStatus();
}

// The checkpoint's tensors against those that learn here.
absl::Status CheckTensors(const std::string& dir, const json& saved,
                          const ShardedOptimizer& optimizer) {
  const json wanted = TensorsJson(optimizer);
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
    if (view.dtype != DTypeOf(piece.kind) || view.numel() != numel) {
      return Lost(file.path(), absl::StrCat(view.name, " has another shape"));
    }
    piece.bytes = view.bytes;
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
  Pass(Failpoint::kCheckpointBegins);
  absl::Status made = MakeDirs(folder);
  if (made.ok()) made = SyncDir(dir);
  if (!made.ok() && !IsNoSpace(made)) return made;
  // An older checkpoint.json must not vouch for new shards.
  if (ranks.rank() == 0) {
    FT_RETURN_IF_ERROR(RemoveFile(JoinPath(folder, kCheckpointFile)));
  }
  FT_RETURN_IF_ERROR(ranks.Barrier());
  const auto write = [&]() -> absl::StatusOr<v1::LocalFile> {
    FT_RETURN_IF_ERROR(made);
    FT_RETURN_IF_ERROR(WriteShard(JoinPath(folder, shard), optimizer));
    Pass(Failpoint::kShardWritten);
    return DescribeFile(folder, shard);
  };
  const absl::StatusOr<v1::LocalFile> own = write();
  FT_ASSIGN_OR_RETURN(const std::vector<v1::LocalFile> shards,
                      GatherFiles(own, ranks));

  v1::CheckpointFiles result;
  result.set_step(info.step);
  result.set_dir(folder);
  *result.add_own() = *own;
  Pass(Failpoint::kShardsGathered);
  absl::Status written;
  if (ranks.rank() == 0) {
    written = WriteFileAtomic(JoinPath(folder, kCheckpointFile),
                              CheckpointJson({.info = info,
                                              .tensors = TensorsJson(optimizer),
                                              .files = shards}));
    Pass(Failpoint::kCheckpointWritten);
  }
  FT_RETURN_IF_ERROR(AgreeOnSpace(written, ranks));
  if (ranks.rank() != 0) return result;

  FT_ASSIGN_OR_RETURN(*result.add_own(), DescribeFile(folder, kCheckpointFile));
  for (const v1::LocalFile& file : shards) *result.add_all() = file;
  *result.add_all() = result.own(1);
  return result;
}

absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(const std::string& dir) {
  FT_ASSIGN_OR_RETURN(const CheckpointFile file, ReadCheckpointFile(dir));
  return file.info;
}

absl::StatusOr<CheckpointInfo> LoadCheckpoint(const std::string& dir,
                                              ShardedOptimizer& optimizer) {
  FT_ASSIGN_OR_RETURN(const CheckpointFile checkpoint, ReadCheckpointFile(dir));
  FT_RETURN_IF_ERROR(CheckTensors(dir, checkpoint.tensors, optimizer));
  std::vector<SafetensorsFile> files;
  SavedPieces pieces;
  for (const v1::LocalFile& entry : checkpoint.files) {
    FT_RETURN_IF_ERROR(Verify(dir, entry));
    FT_ASSIGN_OR_RETURN(SafetensorsFile file,
                        SafetensorsFile::Open(JoinPath(dir, entry.path())));
    files.push_back(std::move(file));
  }
  for (const SafetensorsFile& file : files) {
    FT_RETURN_IF_ERROR(AddPieces(file, pieces));
  }
  FT_RETURN_IF_ERROR(optimizer.LoadPieces(pieces), dir);
  optimizer.set_steps(checkpoint.info.step);
  return checkpoint.info;
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
