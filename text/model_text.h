// SPDX-License-Identifier: Apache-2.0
//
// The text side of a model directory: tokenizer, chat template, special tokens.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace ft {

// What strftime_now shows while training: fixed, so that the tokens of a job do
// not depend on the day it runs. 2024-07-26, the date that Llama 3's templates
// default to.
inline constexpr int64_t kTemplateTime = 1721952000;

struct ChatRequest {
  std::string messages_json = "[]";  // [{role, content, ...}]
  std::string tools_json = "null";   // [{type: function, ...}]
  // Whether the text ends with the beginning of an answer.
  bool add_generation_prompt = false;
  // An object: further variables, for example {"enable_thinking": false}.
  std::string variables_json = "{}";
  int64_t now = kTemplateTime;
};

struct ModelText {
  Tokenizer tokenizer;
  ChatTemplate chat_template;
  // Empty: none.
  std::string bos_token, eos_token, pad_token;
  // By name ("bos_token", "unk_token", ...): what a template sees of them. From
  // tokenizer_config.json, else special_tokens_map.json.
  std::map<std::string, std::string> special_tokens;
  // Tokens that end an answer: eos_token, and eos_token_id of
  // generation_config.json (without it, of config.json).
  std::vector<int64_t> stop_ids;
  // SHA-256 of tokenizer.json, and of the template's text.
  std::string tokenizer_sha256, template_sha256;

  // A conversation as the model's template writes it.
  // INVALID_ARGUMENT: not JSON; or the template refuses the conversation.
  absl::StatusOr<RenderedChat> Render(const ChatRequest& request) const;

  bool IsStop(int64_t id) const;
};

// Reads tokenizer.json (without it, a SentencePiece tokenizer.model),
// tokenizer_config.json, special_tokens_map.json, generation_config.json and
// chat_template.jinja (which wins over the key in tokenizer_config.json).
// `template_name`: "tokenizer" for the model's own, or a built-in one.
// NOT_FOUND: no tokenizer; or no built-in template of that name.
// FAILED_PRECONDITION: the model has no template; the message says what to
// write instead. INVALID_ARGUMENT: a file is not what it should be.
absl::StatusOr<ModelText> LoadModelText(
    const std::string& dir, absl::string_view template_name = "tokenizer");

}  // namespace ft
