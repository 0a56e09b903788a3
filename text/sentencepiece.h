// SPDX-License-Identifier: Apache-2.0
//
// A SentencePiece model (tokenizer.model) as tokenizer.json, for checkpoints
// that come without one.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ft {

// The tokenizer.json that gives the ids of the Unigram model `model`. As in
// Hugging Face's conversion, control pieces like <s> become special tokens that
// are found in a text (a template writes them), and an unknown piece decodes to
// its name.
// INVALID_ARGUMENT: not a SentencePiece model; or of a kind that is not read
// (BPE, word, char). RESOURCE_EXHAUSTED: more pieces than kMaxVocabulary.
absl::StatusOr<std::string> TokenizerJsonFromSentencePiece(
    absl::string_view model);

}  // namespace ft
