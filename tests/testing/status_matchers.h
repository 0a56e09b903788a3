// SPDX-License-Identifier: Apache-2.0
//
// Matchers for absl::Status and absl::StatusOr.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/status.h"

namespace ft::testing {

inline const absl::Status& StatusOf(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg);
  return StatusOf(arg).ok();
}

MATCHER_P(HasCode, code, "") {
  *result_listener << StatusOf(arg);
  return StatusOf(arg).code() == code;
}

MATCHER_P2(Fails, code, message,
           "fails with this code and a message that matches") {
  *result_listener << StatusOf(arg);
  return StatusOf(arg).code() == code &&
         ::testing::ExplainMatchResult(::testing::HasSubstr(message),
                                       std::string(StatusOf(arg).message()),
                                       result_listener);
}

}  // namespace ft::testing

#define FT_EXPECT_OK(expr) EXPECT_THAT(expr, ::ft::testing::IsOk())
#define FT_ASSERT_OK(expr) ASSERT_THAT(expr, ::ft::testing::IsOk())
// Declares `lhs` from a StatusOr; fails the test if it is an error.
#define FT_ASSERT_OK_AND_ASSIGN(lhs, expr) \
  FT_TESTING_ASSIGN_(FT_INTERNAL_CONCAT(ft_test_or_, __LINE__), lhs, expr)
#define FT_TESTING_ASSIGN_(or_value, lhs, expr)    \
  auto or_value = (expr);                          \
  ASSERT_TRUE(or_value.ok()) << or_value.status(); \
  lhs = *std::move(or_value)
