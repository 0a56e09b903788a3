// SPDX-License-Identifier: Apache-2.0
//
// Which build this is.

#pragma once

#include "absl/strings/string_view.h"

namespace ft {

absl::string_view Version();   // "0.1.0"
absl::string_view Revision();  // The commit, or "unknown".

}  // namespace ft
