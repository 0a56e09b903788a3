// SPDX-License-Identifier: Apache-2.0
//
// tokenizer.model, and the tokenizer.json that is made of it.

#include "text/sentencepiece.h"

#include "tests/fuzz/fuzz_target.h"
#include "text/tokenizer.h"

namespace ft {
namespace {

FT_FUZZ_TARGET(sentencepiece) {
  const absl::StatusOr<std::string> json =
      TokenizerJsonFromSentencePiece(input);
  if (!json.ok()) {
    FT_CHECK(absl::IsInvalidArgument(json.status()) ||
             absl::IsResourceExhausted(json.status()));
    return;
  }
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Parse(*json);
  if (!tokenizer.ok()) return;
  tokenizer->Encode("Hello, world!").IgnoreError();
}

}  // namespace
}  // namespace ft
