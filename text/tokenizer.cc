// SPDX-License-Identifier: Apache-2.0

#include "text/tokenizer.h"

#include "absl/strings/match.h"
#include "common/status.h"
#include "text/ft_text.h"
#include "text/rust_text.h"

namespace ft {

void Tokenizer::Free::operator()(FtTokenizer* tokenizer) const {
  ft_tokenizer_free(tokenizer);
}

Tokenizer::Tokenizer(FtTokenizer* handle)
    : handle_(handle),
      vocab_size_(ft_tokenizer_vocab_size(handle)),
      // As signed, what no id_end can be is negative.
      id_end_(static_cast<int64_t>(ft_tokenizer_id_end(handle))) {}

absl::StatusOr<Tokenizer> Tokenizer::Parse(absl::string_view json) {
  if (static_cast<int64_t>(json.size()) > kMaxTokenizerBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("tokenizer.json: ", json.size(), " bytes are more than ",
                     kMaxTokenizerBytes));
  }
  char* error = nullptr;
  FtTokenizer* const handle =
      ft_tokenizer_load(json.data(), json.size(), &error);
  if (handle == nullptr) return internal::TakeError(error, "tokenizer.json");
  Tokenizer tokenizer(handle);
  if (tokenizer.id_end() < 0 || tokenizer.id_end() > kMaxVocabulary ||
      tokenizer.vocab_size() > kMaxVocabulary) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "tokenizer.json: ", tokenizer.vocab_size(), " tokens, ids below ",
        tokenizer.id_end(), "; the limit is ", kMaxVocabulary));
  }
  return tokenizer;
}

absl::StatusOr<Encoding> Tokenizer::Encode(absl::string_view text,
                                           bool add_special) const {
  char* error = nullptr;
  FtEncoding* const handle = ft_tokenizer_encode(
      handle_.get(), text.data(), text.size(), add_special, &error);
  if (handle == nullptr) return internal::TakeError(error, "encode");
  const uint32_t *ids, *begin, *end;
  const size_t count = ft_encoding_view(handle, &ids, &begin, &end);
  Encoding encoding{.ids = {ids, ids + count},
                    .begin = {begin, begin + count},
                    .end = {end, end + count}};
  ft_encoding_free(handle);
  return encoding;
}

absl::StatusOr<std::string> Tokenizer::Decode(const std::vector<int64_t>& ids,
                                              bool skip_special) const {
  std::vector<uint32_t> narrow;
  narrow.reserve(ids.size());
  for (const int64_t id : ids) {
    if (id < 0 || id > UINT32_MAX) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode: ", id, " is no token"));
    }
    narrow.push_back(static_cast<uint32_t>(id));
  }
  char* error = nullptr;
  FtText* const handle = ft_tokenizer_decode(
      handle_.get(), narrow.data(), narrow.size(), skip_special, &error);
  if (handle == nullptr) return internal::TakeError(error, "decode");
  return internal::TakeText(handle);
}

absl::StatusOr<std::string> Tokenizer::TokenOf(int64_t id) const {
  char* error = nullptr;
  FtText* const handle =
      id < 0 || id > UINT32_MAX
          ? nullptr
          : ft_tokenizer_token(handle_.get(), static_cast<uint32_t>(id),
                               &error);
  if (handle == nullptr) {
    ft_error_free(error);
    return absl::NotFoundError(absl::StrCat(id, " is no token"));
  }
  return internal::TakeText(handle);
}

int64_t Tokenizer::IdOf(absl::string_view token) const {
  return ft_tokenizer_id(handle_.get(), token.data(), token.size());
}

absl::StatusOr<std::string> StreamingDecoder::Add(int64_t id) {
  ids_.push_back(id);
  return Emit(/*even_if_cut=*/false);
}

absl::StatusOr<std::string> StreamingDecoder::Finish() {
  return Emit(/*even_if_cut=*/true);
}

absl::StatusOr<std::string> StreamingDecoder::Emit(bool even_if_cut) {
  constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";
  FT_ASSIGN_OR_RETURN(const std::string before,
                      tokenizer_.Decode({ids_.begin(), ids_.begin() + emitted_},
                                        /*skip_special=*/true));
  FT_ASSIGN_OR_RETURN(const std::string after,
                      tokenizer_.Decode(ids_, /*skip_special=*/true));
  const bool is_cut = absl::EndsWith(after, kReplacement);
  if (after.size() <= before.size() || (is_cut && !even_if_cut)) return "";
  ids_.erase(ids_.begin(), ids_.begin() + emitted_);
  emitted_ = ids_.size();
  return after.substr(before.size());
}

}  // namespace ft
