// SPDX-License-Identifier: Apache-2.0

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "data/row_fields.h"
#include "data/row_formats.h"

namespace ft {

using internal::BadField;
using internal::Say;
using internal::TextField;

absl::StatusOr<Example> FromAlpaca(const Json& row) {
  FT_ASSIGN_OR_RETURN(const std::string instruction,
                      TextField(row, "instruction"));
  FT_ASSIGN_OR_RETURN(const std::string input, TextField(row, "input"));
  FT_ASSIGN_OR_RETURN(const std::string output, TextField(row, "output"));
  FT_ASSIGN_OR_RETURN(const std::string system, TextField(row, "system"));
  if (instruction.empty() && input.empty()) {
    return BadField("instruction", "missing or empty, and so is input");
  }
  if (output.empty()) return BadField("output", "missing or empty");

  Example example;
  if (!system.empty()) Say(example, "system", system);
  const auto history = row.find("history");
  if (history != row.end() && !history->is_null()) {
    if (!history->is_array()) {
      return BadField("history", "must be a list of pairs");
    }
    for (const Json& turn : *history) {
      if (!turn.is_array() || turn.size() != 2 || !turn[0].is_string() ||
          !turn[1].is_string()) {
        return BadField("history", "each entry must be [question, answer]");
      }
      Say(example, "user", turn[0]);
      Say(example, "assistant", turn[1]);
    }
  }
  const char* const separator =
      instruction.empty() || input.empty() ? "" : "\n";
  Say(example, "user", absl::StrCat(instruction, separator, input));
  Say(example, "assistant", output);
  return example;
}

}  // namespace ft
