// SPDX-License-Identifier: Apache-2.0
//
// A conversation to tokens and the mark on those that are learned. In this
// order: spans that the template itself marks as generated; else the prefix
// difference: with P the rendering up to an assistant turn with the generation
// prompt and F the rendering that ends with it, the turn is F behind P. A token
// is learned iff it overlaps a span; white space at the end of a span, behind
// the end token, is not, unless learn_tail.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "data/example.h"
#include "text/model_text.h"

namespace ft {

enum class TrainOn {
  kAll,        // Every assistant turn.
  kLast,       // The last one.
  kPromptToo,  // Everything, whatever loss_weight says.
};

// When a template rewrites earlier turns (drops their reasoning), so that the
// rendering of a conversation does not begin with that of its beginning:
enum class HistoryRewrite {
  kSplit,  // Each learned turn becomes its own example.
  kLast,   // Only the last learned turn is an example.
  kError,
};

struct MaskOptions {
  TrainOn train_on = TrainOn::kAll;
  HistoryRewrite history_rewrite = HistoryRewrite::kSplit;
  bool learn_tail = false;
};

// The messages that are learned, in order: assistant turns that may be and
// that train_on wants.
std::vector<size_t> LearnedTurns(const Example& example, TrainOn train_on);

// The first `count` messages, of which only those in `turns` may be learned.
Example Beginning(const Example& example, size_t count,
                  const std::vector<size_t>& turns);

// One example, or under kSplit one for each learned turn where the template
// rewrites earlier turns. `file` and `row` are not set.
// INVALID_ARGUMENT: the template refuses the conversation or drops its tools;
// what is learned cannot be told; renderings do not extend each other under
// kError.
absl::StatusOr<std::vector<TokenizedExample>> TokenizeConversation(
    const Example& example, const ModelText& text, const MaskOptions& options);

// The text of the first `count` messages of a conversation.
absl::StatusOr<RenderedChat> RenderMessages(const Example& example,
                                            size_t count, bool generate,
                                            const ModelText& text);

}  // namespace ft
