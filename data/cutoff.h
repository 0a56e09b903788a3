// SPDX-License-Identifier: Apache-2.0
//
// Conversations that are longer than the model may see.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "data/conversation_mask.h"
#include "data/example.h"
#include "text/model_text.h"

namespace ft {

enum class OverCutoff {
  // Drops the oldest whole turns (system and the last turn stay), then the head
  // of the last user text.
  kTruncate,
  kDrop,
  kError,
};

struct CutoffOptions {
  int64_t cutoff_len = 2048;
  OverCutoff over_cutoff = OverCutoff::kTruncate;
};

struct FittedExamples {
  // Each of at most cutoff_len tokens; empty: dropped.
  std::vector<TokenizedExample> examples;
  bool was_too_long = false;
};

// What TokenizeConversation gives, made to fit. Examples that one row is split
// into are cut each by itself.
// INVALID_ARGUMENT: as TokenizeConversation; too long under kError; or nothing
// is left that could be cut.
absl::StatusOr<FittedExamples> TokenizeWithin(const CutoffOptions& cutoff,
                                              const Example& example,
                                              const ModelText& text,
                                              const MaskOptions& mask);

}  // namespace ft
