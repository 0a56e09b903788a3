// SPDX-License-Identifier: Apache-2.0
//
// Golden files, and bytes of files that are wrong on purpose.

#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <span>
#include <string>

#include "common/check.h"
#include "common/digest.h"
#include "common/file.h"
#include "formats/json.h"

namespace ft::testing {

inline std::string Golden(absl::string_view name) {
  return absl::StrCat(FT_TEST_SOURCE_DIR, "/tests/golden/", name);
}

inline std::string ReadAll(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, int64_t{1} << 30);
  FT_CHECK(text.ok());
  return *std::move(text);
}

inline nlohmann::json ReadJson(const std::string& path) {
  return nlohmann::json::parse(ReadAll(path));
}

inline void WriteBytes(const std::string& path, absl::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// The bytes of a number as a little-endian file holds them.
template <typename T>
std::string Bytes(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

inline std::string Sha256OfValues(std::span<const float> values) {
  return Sha256Hex({reinterpret_cast<const char*>(values.data()),
                    values.size() * sizeof(float)});
}

}  // namespace ft::testing
