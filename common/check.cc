// SPDX-License-Identifier: Apache-2.0

#include "common/check.h"

#include <cstdio>
#include <cstdlib>

namespace ft::internal {

void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: FT_CHECK failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace ft::internal
