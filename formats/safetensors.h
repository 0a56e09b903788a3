// SPDX-License-Identifier: Apache-2.0
//
// safetensors: named tensors in one file. u64 little-endian header length, JSON
// header, data. A file is mapped only after every check of its header has
// passed, so a view can never leave the file. formats/README.md has the limits.
//
// Readers here are for files that nobody cuts while they are mapped: models and
// checkpoints are written once and renamed into place.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/file.h"
#include "formats/dtype.h"
#include "formats/mapped_file.h"

namespace ft {

// What a tensor is, without its elements.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // Row-major; empty: a scalar.

  int64_t numel() const;
  int64_t size_bytes() const { return numel() * SizeOf(dtype); }
  bool operator==(const TensorInfo&) const = default;
};

// A tensor in a mapped file. `bytes` need not be aligned to the element
// (foreign files): copy with memcpy or ToFloat.
struct TensorView : TensorInfo {
  std::span<const std::byte> bytes;
};

// One mapped file. Immutable, so any thread may read it. Views live as long as
// the object (moving it keeps them).
class SafetensorsFile {
 public:
  // NOT_FOUND: no such file. INVALID_ARGUMENT: not a well-formed safetensors
  // file, or a pickle in disguise; the message begins with the path.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }

  // In the order of the data.
  const std::vector<TensorView>& tensors() const { return tensors_; }

  // Null if there is none.
  const TensorView* Find(absl::string_view name) const;

  // NOT_FOUND: there is none; the message names the file.
  absl::StatusOr<const TensorView*> Get(absl::string_view name) const;

  // The strings under __metadata__.
  const std::map<std::string, std::string>& metadata() const {
    return metadata_;
  }

  // Drops the pages of `tensor` from this process; they are read again when
  // touched. For readers that convert a large file tensor by tensor.
  void Forget(const TensorView& tensor) const;

 private:
  explicit SafetensorsFile(MappedFile file) : file_(std::move(file)) {}

  MappedFile file_;
  std::vector<TensorView> tensors_;
  absl::flat_hash_map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
};

// The tensors of a model directory: model.safetensors, or the files that
// model.safetensors.index.json names. Immutable, so any thread may read it.
class SafetensorsModel {
 public:
  // Opens the files of `dir`. Every name in the index must be in the file that
  // it names, and every tensor of a file in the index.
  // NOT_FOUND: there are no weights; INVALID_ARGUMENT: a file is not as it must
  // be. The message begins with the path of the file at fault.
  static absl::StatusOr<SafetensorsModel> Open(const std::string& dir);

  // Names relative to the directory, sorted; the index is not among them.
  const std::vector<std::string>& file_names() const { return file_names_; }

  // Null if there is none.
  const TensorView* Find(absl::string_view name) const;

  // NOT_FOUND: there is none.
  absl::StatusOr<const TensorView*> Get(absl::string_view name) const;

  // Of all files, by name.
  std::vector<const TensorView*> tensors() const;

  void Forget(const TensorView& tensor) const;

 private:
  std::string dir_;
  std::vector<std::string> file_names_;
  std::vector<SafetensorsFile> files_;
};

// Writes a file beside `path` and puts it there when all is written: by
// descending alignment of the element type, then by name, so that the bytes
// depend on nothing but the tensors. Not thread-safe.
class SafetensorsWriter {
 public:
  // Lays the file out. INVALID_ARGUMENT: a name twice, empty or too long, or a
  // bad shape.
  static absl::StatusOr<SafetensorsWriter> Create(
      const std::string& path, std::vector<TensorInfo> tensors,
      const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  SafetensorsWriter(SafetensorsWriter&&) noexcept = default;
  // Assigning over an unfinished writer would leave its temporary file behind.
  SafetensorsWriter& operator=(SafetensorsWriter&&) = delete;
  // Removes the temporary file unless Finish succeeded.
  ~SafetensorsWriter();

  // In the order of the file; writing in this order is the fastest.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }

  // Appends the next bytes of tensor `name`; any order of tensors, any pieces.
  // REQUIRES: the tensor was declared, and the piece fits.
  absl::Status Append(absl::string_view name, std::span<const std::byte> bytes);

  // fsync, rename, fsync of the folder. REQUIRES: every tensor is complete.
  absl::Status Finish();

 private:
  struct Slot {
    int64_t begin = 0;    // Offset in the file.
    int64_t written = 0;  // Bytes.
  };

  SafetensorsWriter() = default;

  std::string path_;
  std::string temporary_path_;
  UniqueFd file_;
  std::vector<TensorInfo> tensors_;
  std::vector<Slot> slots_;
  absl::flat_hash_map<std::string, size_t> index_;
};

// The files of `dir` that hold its weights: model.safetensors, or the index and
// the files that it names. Sorted. Errors as SafetensorsModel::Open.
absl::StatusOr<std::vector<std::string>> WeightFileNames(
    const std::string& dir);

// A tensor to be written, in memory.
struct TensorBytes {
  TensorInfo info;
  std::span<const std::byte> bytes;
};

// The same in one call.
absl::Status WriteSafetensors(
    const std::string& path, std::span<const TensorBytes> tensors,
    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace ft
