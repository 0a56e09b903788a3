// SPDX-License-Identifier: Apache-2.0
//
// Writes GGUF files, right and wrong ones, for tests.

#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/formats/golden.h"

namespace ft::testing {

class GgufBuilder {
 public:
  static std::string Text(absl::string_view text) {
    return absl::StrCat(Bytes<uint64_t>(text.size()), text);
  }

  GgufBuilder& Raw(absl::string_view key, uint32_t type,
                   absl::string_view value) {
    absl::StrAppend(&keys_, Text(key), Bytes(type), value);
    ++num_keys_;
    return *this;
  }
  GgufBuilder& U32(absl::string_view key, uint32_t value) {
    return Raw(key, 4, Bytes(value));
  }
  GgufBuilder& F32(absl::string_view key, float value) {
    return Raw(key, 6, Bytes(value));
  }
  GgufBuilder& Bool(absl::string_view key, bool value) {
    return Raw(key, 7, Bytes<uint8_t>(value));
  }
  GgufBuilder& String(absl::string_view key, absl::string_view value) {
    return Raw(key, 8, Text(value));
  }
  GgufBuilder& Strings(absl::string_view key,
                       const std::vector<std::string>& values) {
    std::string array = Bytes<uint32_t>(8) + Bytes<uint64_t>(values.size());
    for (const std::string& value : values) array += Text(value);
    return Raw(key, 9, array);
  }
  GgufBuilder& Ints(absl::string_view key, const std::vector<int32_t>& values) {
    std::string array = Bytes<uint32_t>(5) + Bytes<uint64_t>(values.size());
    for (const int32_t value : values) array += Bytes(value);
    return Raw(key, 9, array);
  }

  // Dims innermost first, as the file has them.
  GgufBuilder& TensorInfo(absl::string_view name,
                          const std::vector<uint64_t>& dims, uint32_t type,
                          uint64_t offset) {
    absl::StrAppend(&tensors_, Text(name), Bytes<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) tensors_ += Bytes(dim);
    absl::StrAppend(&tensors_, Bytes(type), Bytes(offset));
    ++num_tensors_;
    return *this;
  }
  // A tensor of fp32 values behind the ones before it.
  GgufBuilder& Floats(absl::string_view name, const std::vector<uint64_t>& dims,
                      const std::vector<float>& values) {
    data_.resize((data_.size() + 31) / 32 * 32);
    TensorInfo(name, dims, 0, data_.size());
    for (const float value : values) data_ += Bytes(value);
    return *this;
  }
  GgufBuilder& Data(size_t bytes) {
    data_.resize(data_.size() + bytes);
    return *this;
  }

  std::string Build() const {
    std::string file =
        absl::StrCat("GGUF", Bytes<uint32_t>(3), Bytes<uint64_t>(num_tensors_),
                     Bytes<uint64_t>(num_keys_), keys_, tensors_);
    if (!data_.empty()) file.resize((file.size() + 31) / 32 * 32);
    return file + data_;
  }

 private:
  std::string keys_;
  std::string tensors_;
  std::string data_;
  uint64_t num_keys_ = 0;
  uint64_t num_tensors_ = 0;
};

}  // namespace ft::testing
