// SPDX-License-Identifier: Apache-2.0
//
// Which bug a planted program has: FT_PLANTED_BUG in its environment. Only the
// copies that tests/chaos/plant_bugs.py makes include this.

#pragma once

#include <cstdlib>
#include <string>

#include "absl/strings/string_view.h"

namespace ft::testing {

inline bool IsPlanted(absl::string_view bug) {
  static const std::string* const planted = [] {
    const char* const name = std::getenv("FT_PLANTED_BUG");
    return new std::string(name == nullptr ? "" : name);
  }();
  return *planted == bug;
}

}  // namespace ft::testing
