// SPDX-License-Identifier: Apache-2.0
//
// The writing half of safetensors.h.

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/digest.h"
#include "common/env.h"
#include "common/failpoint.h"
#include "common/file.h"
#include "common/status.h"
#include "formats/json.h"
#include "formats/safetensors.h"

namespace ft {
namespace {

constexpr int64_t kHeaderAlignment = 8;

absl::Status CheckInfo(const TensorInfo& info) {
  if (info.name.empty() || info.name.size() > 256 || !IsUtf8(info.name) ||
      info.name == "__metadata__") {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", info.name, "\" cannot name a tensor"));
  }
  int64_t bytes = SizeOf(info.dtype);
  for (const int64_t dim : info.shape) {
    if (dim < 0 || __builtin_mul_overflow(bytes, dim, &bytes)) {
      return absl::InvalidArgumentError(absl::StrCat(
          info.name, ": bad shape [", absl::StrJoin(info.shape, ","), "]"));
    }
  }
  return absl::OkStatus();
}

std::string HeaderOf(const std::vector<TensorInfo>& tensors,
                     const std::map<std::string, std::string>& metadata) {
  std::vector<std::string> parts;
  if (!metadata.empty()) {
    parts.push_back(absl::StrCat(
        "\"__metadata__\":{",
        absl::StrJoin(metadata, ",",
                      [](std::string* out, const auto& entry) {
                        absl::StrAppend(out, JsonString(entry.first), ":",
                                        JsonString(entry.second));
                      }),
        "}"));
  }
  int64_t begin = 0;
  for (const TensorInfo& info : tensors) {
    const int64_t end = begin + info.size_bytes();
    parts.push_back(absl::StrCat(
        JsonString(info.name), ":{\"dtype\":\"", NameOf(info.dtype),
        "\",\"shape\":[", absl::StrJoin(info.shape, ","),
        "],\"data_offsets\":[", begin, ",", end, "]}"));
    begin = end;
  }
  std::string json = absl::StrCat("{", absl::StrJoin(parts, ","), "}");
  json.resize((json.size() + kHeaderAlignment - 1) / kHeaderAlignment *
                  kHeaderAlignment,
              ' ');
  return json;
}

absl::Status WriteAt(int fd, int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = Files().WriteAt(fd, bytes.data(), bytes.size(), offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return ErrnoStatus(errno, "write");
    bytes = bytes.subspan(put);
    offset += put;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(
    const std::string& path, std::vector<TensorInfo> tensors,
    const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) {
              return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
            });
  SafetensorsWriter writer;
  for (size_t i = 0; i < tensors.size(); ++i) {
    FT_RETURN_IF_ERROR(CheckInfo(tensors[i]), path);
    if (!writer.index_.emplace(tensors[i].name, i).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", tensors[i].name, " stands twice"));
    }
  }
  const std::string header = HeaderOf(tensors, metadata);
  int64_t begin = 8 + static_cast<int64_t>(header.size());
  for (const TensorInfo& info : tensors) {
    writer.slots_.push_back({.begin = begin});
    begin += info.size_bytes();
  }

  writer.path_ = path;
  writer.tensors_ = std::move(tensors);
  const std::string temporary = absl::StrCat(path, ".tmp-", RandomHex(6));
  writer.file_ = UniqueFd(Files().Open(
      temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!writer.file_.is_open()) {
    return ErrnoStatus(errno, absl::StrCat("create ", temporary));
  }
  writer.temporary_path_ = temporary;
  const uint64_t header_bytes = header.size();
  std::string head(sizeof(header_bytes), '\0');
  std::memcpy(head.data(), &header_bytes, sizeof(header_bytes));
  head += header;
  FT_RETURN_IF_ERROR(
      WriteAt(writer.file_.get(), 0, std::as_bytes(std::span(head))), path);
  return writer;
}

SafetensorsWriter::~SafetensorsWriter() {
  // A moved-from writer has no file.
  if (file_.is_open()) {
    RemoveFile(temporary_path_).IgnoreError();  // Best effort on the way out.
  }
}

absl::Status SafetensorsWriter::Append(absl::string_view name,
                                       std::span<const std::byte> bytes) {
  const auto found = index_.find(name);
  FT_CHECK(found != index_.end());
  Slot& slot = slots_[found->second];
  const int64_t size = static_cast<int64_t>(bytes.size());
  FT_CHECK(slot.written + size <= tensors_[found->second].size_bytes());
  FT_RETURN_IF_ERROR(WriteAt(file_.get(), slot.begin + slot.written, bytes),
                     path_);
  slot.written += size;
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Finish() {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    FT_CHECK(slots_[i].written == tensors_[i].size_bytes());
  }
  Pass(Failpoint::kTensorsWritten);
  FT_RETURN_IF_ERROR(Sync(file_.get(), temporary_path_));
  Pass(Failpoint::kTensorsSynced);
  if (Files().Rename(temporary_path_.c_str(), path_.c_str()) != 0) {
    return ErrnoStatus(errno,
                       absl::StrCat("rename ", temporary_path_, " to ", path_));
  }
  file_.Close();
  Pass(Failpoint::kTensorsRenamed);
  return SyncDir(DirName(path_));
}

absl::Status WriteSafetensors(
    const std::string& path, std::span<const TensorBytes> tensors,
    const std::map<std::string, std::string>& metadata) {
  std::vector<TensorInfo> infos;
  absl::flat_hash_map<std::string, std::span<const std::byte>> bytes;
  for (const TensorBytes& tensor : tensors) {
    infos.push_back(tensor.info);
    bytes[tensor.info.name] = tensor.bytes;
  }
  FT_ASSIGN_OR_RETURN(
      SafetensorsWriter writer,
      SafetensorsWriter::Create(path, std::move(infos), metadata));
  for (const TensorInfo& info : writer.tensors()) {
    FT_RETURN_IF_ERROR(writer.Append(info.name, bytes[info.name]));
  }
  return writer.Finish();
}

}  // namespace ft
