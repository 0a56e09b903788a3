// SPDX-License-Identifier: Apache-2.0
//
// Chat templates through the C ABI of the Rust library. What stands behind the
// first byte 0xff is the context as JSON; without it a conversation with tools
// is rendered.

#include "text/chat_template.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

constexpr absl::string_view kContext =
    R"({"messages": [{"role": "system", "content": "s"},)"
    R"( {"role": "user", "content": "hi"},)"
    R"( {"role": "assistant", "content": "", "tool_calls": [{"type":)"
    R"( "function", "function": {"name": "f", "arguments": {"x": 1.5}}}]},)"
    R"( {"role": "tool", "content": "2"},)"
    R"( {"role": "assistant", "content": "bye", "reasoning_content": "r"}],)"
    R"( "tools": [{"type": "function", "function": {"name": "f",)"
    R"( "parameters": {"type": "object", "properties": {}}}}],)"
    R"( "add_generation_prompt": false, "bos_token": "<s>",)"
    R"( "eos_token": "</s>"})";

FT_FUZZ_TARGET(chat_template) {
  const size_t mark = input.find('\xff');
  const absl::StatusOr<ChatTemplate> chat =
      ChatTemplate::Compile(input.substr(0, mark));
  if (!chat.ok()) return;
  const absl::StatusOr<RenderedChat> rendered = chat->Render(
      mark == absl::string_view::npos ? kContext : input.substr(mark + 1),
      /*now=*/1721952000);
  if (!rendered.ok()) return;
  int64_t before = 0;
  for (const auto& [begin, end] : rendered->generation_spans) {
    FT_CHECK(before <= begin && begin <= end);
    FT_CHECK(end <= static_cast<int64_t>(rendered->text.size()));
    before = end;
  }
}

}  // namespace
}  // namespace ft
