// SPDX-License-Identifier: Apache-2.0
//
// Takes what the C ABI gives away. Only text/ includes this file.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "text/ft_text.h"

namespace ft::internal {

inline absl::Status TakeError(char* error, absl::string_view context) {
  absl::Status status = absl::InvalidArgumentError(
      absl::StrCat(context, ": ", error == nullptr ? "unknown" : error));
  ft_error_free(error);
  return status;
}

inline std::string TakeText(FtText* text) {
  size_t size, spans;
  const uint32_t *begin, *end;
  const char* data = ft_text_view(text, &size, &begin, &end, &spans);
  std::string copy(data, size);
  ft_text_free(text);
  return copy;
}

}  // namespace ft::internal
