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

bool IsAssistant(const Json& message) {
  return message.value("role", "") == "assistant";
}

std::string Dump(const Json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/false,
                    Json::error_handler_t::replace);
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

// The spans that belong to `turns`, of those that the template marked.
absl::StatusOr<std::vector<Span>> SpansOfTurns(const Example& example,
                                               const RenderedChat& whole,
                                               const std::vector<size_t>& turns,
                                               const ModelText& text) {
  std::vector<size_t> assistants;
  for (size_t i = 0; i < example.messages.size(); ++i) {
    if (IsAssistant(example.messages[i])) assistants.push_back(i);
  }
  if (turns == assistants) return whole.generation_spans;
  std::vector<Span> spans;
  if (assistants.size() == whole.generation_spans.size()) {
    for (size_t i = 0; i < assistants.size(); ++i) {
      if (std::count(turns.begin(), turns.end(), assistants[i]) > 0) {
        spans.push_back(whole.generation_spans[i]);
      }
    }
    return spans;
  }
  // Several marks a turn, or none: a turn has those that come with it.
  for (const size_t turn : turns) {
    FT_ASSIGN_OR_RETURN(const RenderedChat before,
                        RenderMessages(example, turn, false, text));
    FT_ASSIGN_OR_RETURN(const RenderedChat after,
                        RenderMessages(example, turn + 1, false, text));
    if (!absl::StartsWith(whole.text, before.text) ||
        !absl::StartsWith(whole.text, after.text)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "messages[", turn,
          "]: the template rewrites earlier turns, so which of its marks are "
          "this turn's cannot be told; set data.train_on to all"));
    }
    const auto begin = static_cast<int64_t>(before.text.size());
    const auto end = static_cast<int64_t>(after.text.size());
    for (const Span& span : whole.generation_spans) {
      if (span.first >= begin && span.second <= end) spans.push_back(span);
    }
  }
  return spans;
}

// A template that knows no tools leaves them out without a word.
absl::Status CheckTools(const Example& example, const std::string& rendered) {
  const auto shows = [&](const Json& function) {
    return absl::StrContains(rendered,
                             function["name"].get_ref<const std::string&>());
  };
  constexpr absl::string_view kWayOut =
      " does not appear in the chat template's text; take a model whose "
      "template knows tools";
  for (const Json& tool : example.tools) {
    if (!shows(tool["function"])) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tools: ", tool["function"]["name"].get<std::string>(), kWayOut));
    }
  }
  for (size_t i = 0; i < example.messages.size(); ++i) {
    const auto calls = example.messages[i].find("tool_calls");
    if (calls == example.messages[i].end()) continue;
    for (const Json& call : *calls) {
      if (!shows(call["function"])) {
        return absl::InvalidArgumentError(
            absl::StrCat("messages[", i, "]: the call of ",
                         call["function"]["name"].get<std::string>(), kWayOut));
      }
    }
  }
  return absl::OkStatus();
}

// A turn's rendering that ends with it, and where it lies there.
struct RenderedTurn {
  std::string text;
  Span span;
};

absl::StatusOr<RenderedTurn> RenderTurn(const Example& example, size_t turn,
                                        const ModelText& text) {
  FT_ASSIGN_OR_RETURN(const RenderedChat before,
                      RenderMessages(example, turn, true, text));
  FT_ASSIGN_OR_RETURN(RenderedChat after,
                      RenderMessages(example, turn + 1, false, text));
  if (!absl::StartsWith(after.text, before.text)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "messages[", turn,
        "]: the template's generation prompt is no prefix of the answered "
        "turn, so what is learned cannot be told; use a template with "
        "{% generation %}"));
  }
  const Span span(before.text.size(), after.text.size());
  return RenderedTurn{std::move(after.text), span};
}

}  // namespace

std::vector<size_t> LearnedTurns(const Example& example, TrainOn train_on) {
  std::vector<size_t> turns;
  for (size_t i = 0; i < example.messages.size(); ++i) {
    if (IsAssistant(example.messages[i]) && example.may_learn[i]) {
      turns.push_back(i);
    }
  }
  if (train_on == TrainOn::kLast && turns.size() > 1) {
    turns.erase(turns.begin(), turns.end() - 1);
  }
  return turns;
}

Example Beginning(const Example& example, size_t count,
                  const std::vector<size_t>& turns) {
  Example beginning{.tools = example.tools};
  for (size_t i = 0; i < count; ++i) {
    beginning.messages.push_back(example.messages[i]);
    beginning.may_learn.push_back(std::count(turns.begin(), turns.end(), i) >
                                  0);
  }
  return beginning;
}

absl::StatusOr<RenderedChat> RenderMessages(const Example& example,
                                            size_t count, bool generate,
                                            const ModelText& text) {
  Json messages = Json::array();
  for (size_t i = 0; i < count; ++i) messages.push_back(example.messages[i]);
  return text.Render({.messages_json = Dump(messages),
                      .tools_json = Dump(example.tools),
                      .add_generation_prompt = generate});
}

absl::StatusOr<std::vector<TokenizedExample>> TokenizeConversation(
    const Example& example, const ModelText& text, const MaskOptions& options) {
  const std::vector<size_t> turns = LearnedTurns(example, options.train_on);
  FT_ASSIGN_OR_RETURN(
      const RenderedChat whole,
      RenderMessages(example, example.messages.size(), false, text));
  FT_RETURN_IF_ERROR(CheckTools(example, whole.text));
  std::vector<TokenizedExample> result;
  if (options.train_on == TrainOn::kPromptToo) {
    FT_ASSIGN_OR_RETURN(result.emplace_back(),
                        Tokenize(whole.text, {}, text, options));
    return result;
  }
  if (!whole.generation_spans.empty()) {
    FT_ASSIGN_OR_RETURN(std::vector<Span> spans,
                        SpansOfTurns(example, whole, turns, text));
    FT_ASSIGN_OR_RETURN(result.emplace_back(),
                        Tokenize(whole.text, std::move(spans), text, options));
    return result;
  }

  // Prefix difference, turn by turn.
  std::vector<Span> spans;
  std::vector<RenderedTurn> alone;
  bool extends = true;
  for (const size_t turn : turns) {
    FT_ASSIGN_OR_RETURN(alone.emplace_back(), RenderTurn(example, turn, text));
    extends = extends && absl::StartsWith(whole.text, alone.back().text);
    spans.push_back(alone.back().span);
  }
  if (extends) {
    FT_ASSIGN_OR_RETURN(result.emplace_back(),
                        Tokenize(whole.text, std::move(spans), text, options));
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
  for (const RenderedTurn& turn : alone) {
    FT_ASSIGN_OR_RETURN(result.emplace_back(),
                        Tokenize(turn.text, {turn.span}, text, options));
  }
  return result;
}

}  // namespace ft
