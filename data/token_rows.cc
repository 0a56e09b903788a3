// SPDX-License-Identifier: Apache-2.0

#include "data/token_rows.h"

#include "common/status.h"

namespace ft {

absl::StatusOr<std::vector<TokenRow>> TokenRows(const TokenizedExample& example,
                                                const Tokenizer& tokenizer) {
  std::vector<TokenRow> rows;
  rows.reserve(example.ids.size());
  for (size_t t = 0; t < example.ids.size(); ++t) {
    const absl::StatusOr<std::string> token = tokenizer.TokenOf(example.ids[t]);
    if (!token.ok()) {
      return absl::InvalidArgumentError(token.status().message());
    }
    FT_ASSIGN_OR_RETURN(std::string text,
                        tokenizer.Decode({example.ids[t]},
                                         /*skip_special=*/false));
    rows.push_back({.id = example.ids[t],
                    .token = *token,
                    .text = std::move(text),
                    .learned = example.learned[t]});
  }
  return rows;
}

}  // namespace ft
