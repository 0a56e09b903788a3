// SPDX-License-Identifier: Apache-2.0

#include "formats/pickle.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/mapped_file.h"

namespace ft {
namespace {

absl::Status Refusal(absl::string_view path) {
  return absl::InvalidArgumentError(absl::StrCat(
      path,
      ": a pickle; pickles run code when they are read, so this one is never "
      "unpickled; convert it to safetensors where you trust it, with python3 "
      "-c \"import torch, safetensors.torch as s; s.save_file(torch.load("
      "'model.bin', weights_only=True), 'model.safetensors')\""));
}

}  // namespace

absl::Status RefusePickleName(absl::string_view path) {
  const std::string lower = absl::AsciiStrToLower(path);
  for (const absl::string_view ending :
       {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}) {
    if (absl::EndsWith(lower, ending)) return Refusal(path);
  }
  return absl::OkStatus();
}

absl::Status RefusePickleBytes(absl::string_view path, absl::string_view head) {
  const bool is_zip = absl::StartsWith(head, absl::string_view("PK\3\4", 4));
  // PROTO and the protocol's number, then an opcode or a frame; protocol 0 of
  // old torch begins with a marked long.
  const bool is_pickle = head.size() >= 2 &&
                         static_cast<uint8_t>(head[0]) == 0x80 &&
                         head[1] >= 2 && head[1] <= 5;
  return is_zip || is_pickle ? Refusal(path) : absl::OkStatus();
}

absl::Status RefusePickle(const std::string& path) {
  if (absl::Status named = RefusePickleName(path); !named.ok()) return named;
  const absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return absl::OkStatus();
  std::string head(std::min<int64_t>(file->size(), 16), '\0');
  if (!file->ReadAt(0, {head.data(), head.size()}).ok()) {
    return absl::OkStatus();
  }
  return RefusePickleBytes(path, head);
}

}  // namespace ft
