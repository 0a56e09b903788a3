// SPDX-License-Identifier: Apache-2.0
//
// tokenizer.json through the C ABI of the Rust library. What stands behind the
// first byte 0xff is the text to encode.

#include "tests/fuzz/fuzz_target.h"
#include "text/tokenizer.h"

namespace ft {
namespace {

constexpr absl::string_view kText =
    "Hello, world! 123 \xc3\xa4\xc3\xb6\xe4\xbd\xa0\xe5\xa5\xbd <s>\n\n  end";

// Everything that data/ and ft-train do with a tokenizer.
void Use(const Tokenizer& tokenizer, absl::string_view text) {
  for (const bool add_special : {false, true}) {
    const absl::StatusOr<Encoding> encoding =
        tokenizer.Encode(text, add_special);
    if (!encoding.ok()) continue;
    const size_t count = encoding->ids.size();
    FT_CHECK(encoding->begin.size() == count && encoding->end.size() == count);
    StreamingDecoder decoder(tokenizer);
    for (size_t i = 0; i < count && i < 64; ++i) {
      FT_CHECK(encoding->ids[i] >= 0);
      tokenizer.TokenOf(encoding->ids[i]).IgnoreError();
      decoder.Add(encoding->ids[i]).IgnoreError();
    }
    decoder.Finish().IgnoreError();
    tokenizer.Decode(encoding->ids, /*skip_special=*/true).IgnoreError();
  }
}

FT_FUZZ_TARGET(tokenizer_json) {
  const size_t mark = input.find('\xff');
  const absl::StatusOr<Tokenizer> tokenizer =
      Tokenizer::Parse(input.substr(0, mark));
  if (!tokenizer.ok()) return;
  FT_CHECK(tokenizer->vocab_size() <= kMaxVocabulary);
  FT_CHECK(tokenizer->id_end() <= kMaxVocabulary);
  tokenizer->IdOf("<s>");
  Use(*tokenizer,
      mark == absl::string_view::npos ? kText : input.substr(mark + 1));
}

}  // namespace
}  // namespace ft
