// SPDX-License-Identifier: Apache-2.0
//
// GGUF v3: metadata and quantised tensors in one file, as llama.cpp writes it.
// The file is mapped and walked with every length checked against what is left
// of it; formats/README.md has the limits. gguf_blocks.h knows the block types.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/gguf_blocks.h"
#include "formats/mapped_file.h"

namespace ft {

struct GgufTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<int64_t> shape;  // Outermost first: [out, in] for a linear.
  std::span<const std::byte> bytes;

  int64_t numel() const;
};

// A mapped file. Immutable, so any thread may read it.
class GgufFile {
 public:
  // NOT_FOUND: no such file. INVALID_ARGUMENT: not a well-formed GGUF v3 file.
  // UNIMPLEMENTED: a tensor has a type that we do not read.
  // RESOURCE_EXHAUSTED: a count is over its limit. The message begins with the
  // path.
  static absl::StatusOr<GgufFile> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }

  // In the order of the file.
  const std::vector<GgufTensor>& tensors() const { return tensors_; }

  // Null if there is none.
  const GgufTensor* Find(absl::string_view name) const;

  // The metadata of one key. NOT_FOUND: it is missing; INVALID_ARGUMENT: it has
  // another type. Views live as long as the object.
  bool Has(absl::string_view key) const;
  absl::StatusOr<int64_t> GetInt(absl::string_view key) const;
  absl::StatusOr<double> GetFloat(absl::string_view key) const;
  absl::StatusOr<bool> GetBool(absl::string_view key) const;
  absl::StatusOr<absl::string_view> GetString(absl::string_view key) const;
  absl::StatusOr<std::vector<absl::string_view>> GetStrings(
      absl::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> GetInts(absl::string_view key) const;

  // The same, with a value for a missing key.
  absl::StatusOr<int64_t> IntOr(absl::string_view key, int64_t missing) const;
  absl::StatusOr<double> FloatOr(absl::string_view key, double missing) const;
  absl::StatusOr<bool> BoolOr(absl::string_view key, bool missing) const;

  // All keys, sorted.
  std::vector<std::string> keys() const;

 private:
  friend class GgufParser;

  // A checked value, still in the file's bytes.
  struct Value {
    uint32_t type = 0;
    uint32_t element_type = 0;  // Of an array.
    uint64_t count = 1;         // Of an array.
    std::span<const std::byte> bytes;
  };

  explicit GgufFile(MappedFile file) : file_(std::move(file)) {}
  absl::StatusOr<const Value*> FindValue(absl::string_view key) const;

  MappedFile file_;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<std::string, size_t> index_;
  absl::flat_hash_map<std::string, Value> values_;
};

}  // namespace ft
