// SPDX-License-Identifier: Apache-2.0
//
// The text side of a model directory: tokenizer, chat template, special tokens.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace ft {

struct ModelText {
  Tokenizer tokenizer;
  ChatTemplate chat_template;
  // From tokenizer_config.json; empty: none.
  std::string bos_token, eos_token, pad_token;
  // Tokens that end an answer: eos of generation_config.json and of
  // tokenizer_config.json.
  std::vector<int64_t> stop_ids;
  // SHA-256 of tokenizer.json, and of the template's text.
  std::string tokenizer_sha256, template_sha256;
};

// Reads tokenizer.json, tokenizer_config.json, generation_config.json and
// chat_template.jinja (which wins over the key in tokenizer_config.json).
// `template_name`: "tokenizer" for the model's own, or a built-in one.
// NOT_FOUND: no tokenizer.json. FAILED_PRECONDITION: the model has no template;
// the message says what to write instead.
absl::StatusOr<ModelText> LoadModelText(
    const std::string& dir, absl::string_view template_name = "tokenizer");

}  // namespace ft
