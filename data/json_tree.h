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
  enum class Kind { kSyntax, kEncoding, kDepth, kDuplicate };
  Kind kind = Kind::kSyntax;
  size_t offset = 0;  // In bytes. 0 for kDepth.
};

// Fills `tree` from `text`. A key that stands twice in an object is a fault:
// Python's loaders take the last value without a word, and one of the two is a
// mistake. On a fault `tree` is discarded, as nlohmann calls it.
std::optional<JsonFault> ParseJsonTree(absl::string_view text, Json& tree);

// For a text within a row, often what a model wrote: any fault means no JSON,
// and of a key that stands twice the last value counts, as in Python.
Json ParseJsonText(absl::string_view text);

}  // namespace ft
