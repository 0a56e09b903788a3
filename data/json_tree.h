// SPDX-License-Identifier: Apache-2.0
//
// JSON of strangers to a tree that keeps the order of keys: bounded in depth,
// and linear in the text. nlohmann's own parser compares each key of an ordered
// object with all before it, and follows any depth, which then overflows the
// stack of whoever copies the tree.

#pragma once

#include <cstddef>
#include <optional>

#include "absl/strings/string_view.h"
#include "data/example.h"

namespace ft {

inline constexpr int kMaxJsonDepth = 64;

struct JsonFault {
  enum class Kind { kSyntax, kEncoding, kDepth };
  Kind kind = Kind::kSyntax;
  size_t offset = 0;  // In bytes. 0 for kDepth.
};

// Fills `tree` from `text`; of a key that stands twice the last value counts,
// as in Python. On a fault `tree` is discarded, as nlohmann calls it.
std::optional<JsonFault> ParseJsonTree(absl::string_view text, Json& tree);

// The same for a text within a row, where any fault means: no JSON.
Json ParseJsonText(absl::string_view text);

}  // namespace ft
