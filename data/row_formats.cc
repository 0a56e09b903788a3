// SPDX-License-Identifier: Apache-2.0

#include "data/row_formats.h"

namespace ft {

absl::StatusOr<Example> ExampleFromRow(RowFormat format, const Json& row) {
  if (!row.is_object()) {
    return absl::InvalidArgumentError("the row is no JSON object");
  }
  switch (format) {
    case RowFormat::kAlpaca:
      return FromAlpaca(row);
    case RowFormat::kSharegpt:
      return FromSharegpt(row);
    case RowFormat::kOpenai:
      return FromOpenai(row);
  }
  return absl::InternalError("no such format");
}

}  // namespace ft
