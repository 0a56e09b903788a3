// SPDX-License-Identifier: Apache-2.0
//
// Conversations to text by the model's own Jinja template, as transformers
// renders it.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct FtTemplate;

namespace ft {

struct RenderedChat {
  std::string text;
  // Bytes [first, second) that the template itself marks as generated; empty if
  // it marks nothing.
  std::vector<std::pair<int64_t, int64_t>> generation_spans;
};

// Immutable: any thread may use it.
class ChatTemplate {
 public:
  // INVALID_ARGUMENT: not a template; the message has the line.
  static absl::StatusOr<ChatTemplate> Compile(absl::string_view source);

  // A template by its name, for models without one: "chatml".
  // NOT_FOUND: no such name; the message lists them.
  static absl::StatusOr<ChatTemplate> BuiltIn(absl::string_view name);

  // `context_json` is an object: messages, tools, add_generation_prompt,
  // bos_token, ... `now` is what strftime_now shows, seconds since 1970.
  // INVALID_ARGUMENT: the template refuses the conversation, or runs out of
  // fuel.
  absl::StatusOr<RenderedChat> Render(absl::string_view context_json,
                                      int64_t now) const;

 private:
  struct Free {
    void operator()(FtTemplate* handle) const;
  };
  explicit ChatTemplate(FtTemplate* handle) : handle_(handle) {}
  std::unique_ptr<FtTemplate, Free> handle_;
};

}  // namespace ft
