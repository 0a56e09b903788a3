// SPDX-License-Identifier: Apache-2.0

#include "data/cutoff.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace ft {
namespace {

bool IsUser(const Json& message) { return message.value("role", "") == "user"; }

bool Fits(const std::vector<TokenizedExample>& examples, int64_t cutoff_len) {
  return std::all_of(examples.begin(), examples.end(),
                     [&](const TokenizedExample& example) {
                       return example.size() <= cutoff_len;
                     });
}

// Without the oldest turn: the messages from the first user text up to the
// second. False: there is only one.
bool DropOldestTurn(Example& example) {
  const auto begin =
      std::find_if(example.messages.begin(), example.messages.end(), IsUser);
  if (begin == example.messages.end()) return false;
  const auto end =
      std::find_if(std::next(begin), example.messages.end(), IsUser);
  if (end == example.messages.end()) return false;
  const auto first = std::distance(example.messages.begin(), begin);
  const auto last = std::distance(example.messages.begin(), end);
  example.messages.erase(begin, end);
  example.may_learn.erase(example.may_learn.begin() + first,
                          example.may_learn.begin() + last);
  return true;
}

// The last user text; null: there is none.
std::string* Question(Example& example) {
  for (size_t i = example.messages.size(); i-- > 0;) {
    if (IsUser(example.messages[i])) {
      return &example.messages[i]["content"].get_ref<std::string&>();
    }
  }
  return nullptr;
}

// The last `bytes` bytes, from a character's boundary.
std::string Tail(const std::string& text, size_t bytes) {
  size_t begin = text.size() - std::min(bytes, text.size());
  while (begin < text.size() &&
         (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) {
    ++begin;
  }
  return text.substr(begin);
}

// One example whose last user text is cut to the longest tail that fits, found
// by halving.
absl::StatusOr<std::vector<TokenizedExample>> CutQuestion(
    int64_t cutoff_len, Example example, const ModelText& text,
    const MaskOptions& mask) {
  std::vector<TokenizedExample> best;
  if (std::string* const question = Question(example)) {
    const std::string whole = *question;
    size_t low = 0, high = whole.size();
    while (low < high) {
      const size_t middle = low + (high - low + 1) / 2;
      *question = Tail(whole, middle);
      FT_ASSIGN_OR_RETURN(std::vector<TokenizedExample> cut,
                          TokenizeConversation(example, text, mask));
      if (Fits(cut, cutoff_len)) {
        best = std::move(cut);
        low = middle;
      } else {
        high = middle - 1;
      }
    }
  }
  if (best.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("does not fit data.cutoff_len ", cutoff_len,
                     " even without its question; raise it, or set "
                     "data.over_cutoff to drop"));
  }
  return best;
}

// A conversation that is too long, to one example or several that fit.
absl::StatusOr<std::vector<TokenizedExample>> Truncate(
    int64_t cutoff_len, Example example, const ModelText& text,
    const MaskOptions& mask) {
  std::vector<TokenizedExample> examples;
  do {
    FT_ASSIGN_OR_RETURN(examples, TokenizeConversation(example, text, mask));
    if (Fits(examples, cutoff_len)) return examples;
    if (examples.size() > 1) break;
  } while (DropOldestTurn(example));
  if (examples.size() == 1) {
    return CutQuestion(cutoff_len, std::move(example), text, mask);
  }
  // A row that is split: turn by turn, so that a long end costs no beginning.
  std::vector<TokenizedExample> result;
  for (const size_t turn : LearnedTurns(example, mask.train_on)) {
    FT_ASSIGN_OR_RETURN(
        std::vector<TokenizedExample> alone,
        Truncate(cutoff_len, Beginning(example, turn + 1, {turn}), text, mask));
    std::move(alone.begin(), alone.end(), std::back_inserter(result));
  }
  return result;
}

}  // namespace

absl::StatusOr<FittedExamples> TokenizeWithin(const CutoffOptions& cutoff,
                                              const Example& example,
                                              const ModelText& text,
                                              const MaskOptions& mask) {
  FittedExamples fitted;
  FT_ASSIGN_OR_RETURN(fitted.examples,
                      TokenizeConversation(example, text, mask));
  if (Fits(fitted.examples, cutoff.cutoff_len)) return fitted;
  fitted.was_too_long = true;
  switch (cutoff.over_cutoff) {
    case OverCutoff::kDrop:
      fitted.examples.clear();
      return fitted;
    case OverCutoff::kError: {
      int64_t longest = 0;
      for (const TokenizedExample& one : fitted.examples) {
        longest = std::max(longest, one.size());
      }
      return absl::InvalidArgumentError(
          absl::StrCat(longest, " tokens are more than data.cutoff_len ",
                       cutoff.cutoff_len));
    }
    case OverCutoff::kTruncate:
      break;
  }
  FT_ASSIGN_OR_RETURN(fitted.examples,
                      Truncate(cutoff.cutoff_len, example, text, mask));
  return fitted;
}

}  // namespace ft
