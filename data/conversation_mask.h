// SPDX-License-Identifier: Apache-2.0
//
// A conversation to tokens and the mark on those that are learned. In this
// order: spans that the template itself marks as generated; else the prefix
// difference: with P the rendering up to an assistant turn with the generation
// prompt and F the rendering that ends with it, the turn is F behind P. A token
// is learned iff it overlaps a span; white space behind the end token is not,
// unless learn_tail.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "data/example.h"
#include "text/model_text.h"

namespace ft {

enum class TrainOn { kAll, kLast, kPromptToo };
enum class HistoryRewrite { kSplit, kLast, kError };

struct MaskOptions {
  TrainOn train_on = TrainOn::kAll;
  HistoryRewrite history_rewrite = HistoryRewrite::kSplit;
  bool learn_tail = false;
};

// One example, or several where the template drops earlier turns' reasoning
// and history_rewrite is kSplit.
// INVALID_ARGUMENT: the template refuses the conversation; or renderings do not
// extend each other under kError.
absl::StatusOr<std::vector<TokenizedExample>> TokenizeConversation(
    const Example& example, const ModelText& text, const MaskOptions& options);

// The text of the first messages of a conversation.
absl::StatusOr<RenderedChat> RenderMessages(const Example& example,
                                            size_t count, bool generate,
                                            const ModelText& text);

}  // namespace ft
