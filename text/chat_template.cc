// SPDX-License-Identifier: Apache-2.0

#include "text/chat_template.h"

#include "common/status.h"
#include "text/ft_text.h"
#include "text/rust_text.h"

namespace ft {
namespace {

constexpr absl::string_view kChatml =
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>' + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

}  // namespace

void ChatTemplate::Free::operator()(FtTemplate* handle) const {
  ft_template_free(handle);
}

absl::StatusOr<ChatTemplate> ChatTemplate::Compile(absl::string_view source) {
  char* error = nullptr;
  FtTemplate* const handle =
      ft_template_compile(source.data(), source.size(), &error);
  if (handle == nullptr) return internal::TakeError(error, "chat template");
  return ChatTemplate(handle);
}

absl::StatusOr<ChatTemplate> ChatTemplate::BuiltIn(absl::string_view name) {
  if (name == "chatml") return Compile(kChatml);
  return absl::NotFoundError(absl::StrCat(
      "\"", name, "\" is no built-in chat template; there is chatml"));
}

absl::StatusOr<RenderedChat> ChatTemplate::Render(
    absl::string_view context_json, int64_t now) const {
  char* error = nullptr;
  FtText* const handle = ft_template_render(handle_.get(), context_json.data(),
                                            context_json.size(), now, &error);
  if (handle == nullptr) return internal::TakeError(error, "chat template");
  size_t size, spans;
  const uint32_t *begin, *end;
  const char* text = ft_text_view(handle, &size, &begin, &end, &spans);
  RenderedChat chat{.text = std::string(text, size)};
  for (size_t i = 0; i < spans; ++i) {
    chat.generation_spans.emplace_back(begin[i], end[i]);
  }
  ft_text_free(handle);
  return chat;
}

}  // namespace ft
