// SPDX-License-Identifier: Apache-2.0
//
// An environment variable for the length of a test.

#pragma once

#include <cstdlib>
#include <optional>
#include <string>

namespace ft::testing {

class ScopedEnv {
 public:
  // nullptr: unset.
  ScopedEnv(std::string name, const char* value) : name_(std::move(name)) {
    if (const char* before = std::getenv(name_.c_str())) before_ = before;
    Set(value);
  }
  ~ScopedEnv() { Set(before_.has_value() ? before_->c_str() : nullptr); }
  ScopedEnv(const ScopedEnv&) = delete;
  ScopedEnv& operator=(const ScopedEnv&) = delete;

 private:
  void Set(const char* value) {
    if (value == nullptr) {
      unsetenv(name_.c_str());
    } else {
      setenv(name_.c_str(), value, 1);
    }
  }

  const std::string name_;
  std::optional<std::string> before_;
};

}  // namespace ft::testing
