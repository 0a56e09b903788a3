// SPDX-License-Identifier: Apache-2.0
//
// Rows of a data set, from the file to tokens with a mask: a JSON array or JSON
// lines; the first byte says the format (alpaca, sharegpt, openai).

#include "common/file.h"
#include "data/cutoff.h"
#include "data/json_reader.h"
#include "data/row_formats.h"
#include "data/variables.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

const ModelText& TinyText() {
  static const ModelText* const text =
      new ModelText(LoadModelText(JoinPath(FT_TEST_SOURCE_DIR,
                                           "tests/golden/models/tiny_chat"))
                        .value());
  return *text;
}

void Tokenize(const Json& row, RowFormat format) {
  absl::StatusOr<Example> example = ExampleFromRow(format, row);
  if (!example.ok()) {
    FT_CHECK(absl::IsInvalidArgument(example.status()));
    return;
  }
  FT_CHECK(example->messages.size() == example->may_learn.size());
  FillVariables({{"name", "Ada"}}, *example);
  const absl::StatusOr<FittedExamples> fitted =
      TokenizeWithin({.cutoff_len = 64}, *example, TinyText(), MaskOptions());
  if (!fitted.ok()) return;
  for (const TokenizedExample& tokens : fitted->examples) {
    FT_CHECK(tokens.ids.size() == tokens.learned.size());
    FT_CHECK(tokens.size() <= 64);
  }
}

FT_FUZZ_TARGET(dataset_rows) {
  if (input.empty()) return;
  const auto format =
      static_cast<RowFormat>(static_cast<unsigned char>(input[0]) % 3);
  int64_t last_row = 0;
  FT_CHECK(ReadJsonRows(
               fuzz::InputFile(input.substr(1)), "rows.json",
               [&](const RowPlace& place, Json row) {
                 FT_CHECK(place.row > last_row);
                 last_row = place.row;
                 Tokenize(row, format);
               },
               [](const BadRow& bad) { FT_CHECK(!bad.reason.empty()); })
               .ok());
}

}  // namespace
}  // namespace ft
