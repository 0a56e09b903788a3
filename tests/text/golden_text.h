// SPDX-License-Identifier: Apache-2.0
//
// The text goldens, and offsets in code points as they state them.

#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/file.h"

namespace ft::testing {

inline std::string GoldenText(const std::string& name) {
  absl::StatusOr<std::string> text = ReadFile(
      std::string(FT_TEST_SOURCE_DIR "/tests/golden/") + name, 64 << 20);
  FT_CHECK(text.ok());
  return *std::move(text);
}

inline nlohmann::ordered_json GoldenTextJson(const std::string& name) {
  return nlohmann::ordered_json::parse(GoldenText(name));
}

// For each byte offset of `text` the number of code points that begin before
// it; a byte inside a character counts the character as begun.
inline std::vector<int64_t> CodePointsBefore(const std::string& text) {
  std::vector<int64_t> before(text.size() + 1);
  int64_t count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    before[i] = count;
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) ++count;
  }
  before[text.size()] = count;
  return before;
}

}  // namespace ft::testing
