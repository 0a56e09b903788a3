// SPDX-License-Identifier: Apache-2.0
//
// A folder for one test, gone after it.

#pragma once

#include <string>

#include "common/check.h"
#include "common/file.h"

namespace ft::testing {

class TestDir {
 public:
  TestDir() : dir_(Make()) {}
  const std::string& path() const { return dir_.path(); }
  std::string operator/(absl::string_view name) const {
    return JoinPath(dir_.path(), name);
  }

 private:
  static TempDir Make() {
    absl::StatusOr<TempDir> dir = TempDir::Create();
    FT_CHECK(dir.ok());
    return *std::move(dir);
  }
  TempDir dir_;
};

}  // namespace ft::testing
