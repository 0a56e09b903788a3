// SPDX-License-Identifier: Apache-2.0
//
// "did you mean": the nearest of the words that would have been right.

#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace ft {

// The word with the least edit distance, if it is near enough to be meant;
// else "".
std::string Nearest(absl::string_view word,
                    const std::vector<std::string>& words);

}  // namespace ft
