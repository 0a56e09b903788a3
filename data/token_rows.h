// SPDX-License-Identifier: Apache-2.0
//
// An example token by token, for people to look at.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/example.h"
#include "text/tokenizer.h"

namespace ft {

struct TokenRow {
  int64_t id = 0;
  std::string token;  // Its string in the vocabulary.
  std::string text;   // What it decodes to; a part of a character is U+FFFD.
  bool learned = false;
};

// INVALID_ARGUMENT: an id that is no token of `tokenizer`.
absl::StatusOr<std::vector<TokenRow>> TokenRows(const TokenizedExample& example,
                                                const Tokenizer& tokenizer);

}  // namespace ft
