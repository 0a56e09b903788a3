// SPDX-License-Identifier: Apache-2.0
//
// Text to token ids and back, exactly as Hugging Face's tokenizers library does
// it (it does it: text/ft_text).

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct FtTokenizer;

namespace ft {

// Token t covers the bytes [begin[t], end[t]) of the text.
struct Encoding {
  std::vector<int64_t> ids;
  std::vector<int64_t> begin;
  std::vector<int64_t> end;
};

inline constexpr int64_t kMaxTokenizerBytes = 64 << 20;
inline constexpr int64_t kMaxVocabulary = 1 << 22;

// Immutable: any thread may use it.
class Tokenizer {
 public:
  // From the text of a tokenizer.json. Its padding and truncation are ignored:
  // data/ cuts and packs.
  // INVALID_ARGUMENT: it is none. RESOURCE_EXHAUSTED: over the limits above.
  static absl::StatusOr<Tokenizer> Parse(absl::string_view json);

  // Number of tokens, added ones included.
  int64_t vocab_size() const { return vocab_size_; }

  // One more than the greatest id: the rows that an embedding needs.
  int64_t id_end() const { return id_end_; }

  // `add_special`: what the post-processor adds around a whole text.
  // INVALID_ARGUMENT: not UTF-8.
  absl::StatusOr<Encoding> Encode(absl::string_view text,
                                  bool add_special = false) const;

  // Ids that are no tokens are left out; `skip_special`: special ones too.
  // INVALID_ARGUMENT: a negative id, or the library cannot decode them.
  absl::StatusOr<std::string> Decode(const std::vector<int64_t>& ids,
                                     bool skip_special) const;

  // The token's own string in the vocabulary. NOT_FOUND: no such id.
  absl::StatusOr<std::string> TokenOf(int64_t id) const;

  // -1: no such token.
  int64_t IdOf(absl::string_view token) const;

 private:
  struct Free {
    void operator()(FtTokenizer* tokenizer) const;
  };
  explicit Tokenizer(FtTokenizer* handle);

  std::unique_ptr<FtTokenizer, Free> handle_;
  int64_t vocab_size_;
  int64_t id_end_;
};

// Turns tokens into text as they come, special ones left out: never half a
// character. The pieces one after another are the text of all tokens. Not
// thread-safe.
class StreamingDecoder {
 public:
  // `tokenizer` must outlive it.
  explicit StreamingDecoder(const Tokenizer& tokenizer)
      : tokenizer_(tokenizer) {}

  // What the token adds to the text; empty while a character is not whole.
  absl::StatusOr<std::string> Add(int64_t id);

  // What is left: a character that never became whole is U+FFFD.
  absl::StatusOr<std::string> Finish();

 private:
  absl::StatusOr<std::string> Emit(bool even_if_cut);

  const Tokenizer& tokenizer_;
  // Tokens that are decoded together; the text of the first emitted_ has been
  // given out. They stay as context, because a decoder may treat the first
  // token of a text in its own way.
  std::vector<int64_t> ids_;
  size_t emitted_ = 0;
};

}  // namespace ft
