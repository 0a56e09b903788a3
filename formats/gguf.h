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
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/gguf_blocks.h"

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

  GgufFile(GgufFile&&) noexcept;
  GgufFile& operator=(GgufFile&&) noexcept;
  ~GgufFile();

  const std::string& path() const { return path_; }

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

  GgufFile() = default;
  void Unmap();
  absl::StatusOr<const Value*> FindValue(absl::string_view key) const;

  std::string path_;
  const std::byte* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<std::string, size_t> index_;
  absl::flat_hash_map<std::string, Value> values_;
};

}  // namespace ft
