// SPDX-License-Identifier: Apache-2.0

#include "data/conversation_mask.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace ft {
namespace {

using Span = std::pair<int64_t, int64_t>;  // Bytes [first, second).

// What strftime_now shows: fixed, so that a job's tokens never depend on the
// day it runs. 2024-07-26, the date that Llama 3's templates default to.
constexpr int64_t kTemplateTime = 1721952000;

bool IsAssistant(const Json& message) {
  return message.value("role", "") == "assistant";
}

// The span without the white space at its end.
Span TrimTail(const std::string& text, Span span) {
  while (
      span.second > span.first &&
      absl::ascii_isspace(static_cast<unsigned char>(text[span.second - 1]))) {
    --span.second;
  }
  return span;
}

absl::StatusOr<TokenizedExample> Tokenize(const std::string& text,
                                          std::vector<Span> spans,
                                          const ModelText& model,
                                          const MaskOptions& options) {
  if (options.train_on == TrainOn::kPromptToo) {
    spans = {{0, static_cast<int64_t>(text.size())}};
  }
  if (!options.learn_tail) {
    for (Span& span : spans) span = TrimTail(text, span);
  }
  FT_ASSIGN_OR_RETURN(const Encoding encoding, model.tokenizer.Encode(text));
  TokenizedExample tokenized;
  size_t next = 0;
  for (size_t t = 0; t < encoding.ids.size(); ++t) {
    while (next < spans.size() && spans[next].second <= encoding.begin[t]) {
      ++next;
    }
    tokenized.ids.push_back(static_cast<int32_t>(encoding.ids[t]));
    tokenized.learned.push_back(next < spans.size() &&
                                encoding.end[t] > spans[next].first);
  }
  return tokenized;
}

std::vector<size_t> LearnedTurns(const Example& example,
                                 const MaskOptions& options) {
  std::vector<size_t> turns;
  for (size_t i = 0; i < example.messages.size(); ++i) {
    if (IsAssistant(example.messages[i]) && example.may_learn[i]) {
      turns.push_back(i);
    }
  }
  if (options.train_on == TrainOn::kLast && turns.size() > 1) {
    turns.erase(turns.begin(), turns.end() - 1);
  }
  return turns;
}

// A template that marks its answers: the marks of the turns to learn.
std::vector<Span> MarkedSpans(const Example& example, const RenderedChat& chat,
                              const std::vector<size_t>& turns) {
  std::vector<size_t> assistants;
  for (size_t i = 0; i < example.messages.size(); ++i) {
    if (IsAssistant(example.messages[i])) assistants.push_back(i);
  }
  if (assistants.size() != chat.generation_spans.size()) {
    return chat.generation_spans;
  }
  std::vector<Span> spans;
  for (size_t i = 0; i < assistants.size(); ++i) {
    if (std::find(turns.begin(), turns.end(), assistants[i]) != turns.end()) {
      spans.push_back(chat.generation_spans[i]);
    }
  }
  return spans;
}

}  // namespace

absl::StatusOr<RenderedChat> RenderMessages(const Example& example,
                                            size_t count, bool generate,
                                            const ModelText& text) {
  Json messages = Json::array();
  for (size_t i = 0; i < count; ++i) messages.push_back(example.messages[i]);
  const Json context = {{"messages", std::move(messages)},
                        {"tools", example.tools},
                        {"documents", nullptr},
                        {"add_generation_prompt", generate},
                        {"bos_token", text.bos_token},
                        {"eos_token", text.eos_token},
                        {"pad_token", text.pad_token}};
  return text.chat_template.Render(context.dump(), kTemplateTime);
}

absl::StatusOr<std::vector<TokenizedExample>> TokenizeConversation(
    const Example& example, const ModelText& text, const MaskOptions& options) {
  const size_t count = example.messages.size();
  const std::vector<size_t> turns = LearnedTurns(example, options);
  FT_ASSIGN_OR_RETURN(const RenderedChat whole,
                      RenderMessages(example, count, false, text));
  std::vector<TokenizedExample> result;
  if (!whole.generation_spans.empty()) {
    FT_ASSIGN_OR_RETURN(result.emplace_back(),
                        Tokenize(whole.text, MarkedSpans(example, whole, turns),
                                 text, options));
    return result;
  }

  // Prefix difference, turn by turn.
  std::vector<Span> spans;
  std::vector<std::pair<std::string, Span>> alone;
  bool extends = true;
  for (const size_t turn : turns) {
    FT_ASSIGN_OR_RETURN(const RenderedChat before,
                        RenderMessages(example, turn, true, text));
    FT_ASSIGN_OR_RETURN(const RenderedChat after,
                        RenderMessages(example, turn + 1, false, text));
    if (!absl::StartsWith(after.text, before.text)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "messages[", turn,
          "]: the template's generation prompt is no prefix of the answered "
          "turn, so what is learned cannot be told; use a template with "
          "{% generation %}"));
    }
    const Span span(before.text.size(), after.text.size());
    extends = extends && absl::StartsWith(whole.text, after.text);
    spans.push_back(span);
    alone.emplace_back(after.text, span);
  }
  if (extends) {
    FT_ASSIGN_OR_RETURN(result.emplace_back(),
                        Tokenize(whole.text, spans, text, options));
    return result;
  }
  if (options.history_rewrite == HistoryRewrite::kError) {
    return absl::InvalidArgumentError(
        "the template rewrites earlier turns; set data.history_rewrite to "
        "split or last");
  }
  if (options.history_rewrite == HistoryRewrite::kLast) {
    alone.erase(alone.begin(), alone.end() - 1);
  }
  for (const auto& [rendered, span] : alone) {
    FT_ASSIGN_OR_RETURN(result.emplace_back(),
                        Tokenize(rendered, {span}, text, options));
  }
  return result;
}

}  // namespace ft
