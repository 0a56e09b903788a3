// SPDX-License-Identifier: Apache-2.0

#include "formats/json.h"

#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::ft::testing::Fails;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(JsonTest, AKeyMayStandOnceInAnObject) {
  EXPECT_THAT(ParseJson(R"({"a":1,"b":{"a":2},"a":3})"),
              Fails(kInvalid, "\"a\" stands twice"));
  FT_EXPECT_OK(ParseJson(R"({"a":1,"b":{"a":2},"c":[{"a":3},{"a":4}]})"));
}

TEST(JsonTest, DepthHasALimitAndCostsNoStack) {
  FT_EXPECT_OK(ParseJson("[[[1]]]", 3));
  EXPECT_THAT(ParseJson("[[[[1]]]]", 3), Fails(kInvalid, "deeper than 3"));
  EXPECT_THAT(ParseJson(std::string(1'000'000, '[')),
              Fails(kInvalid, "deeper"));
}

TEST(JsonTest, SyntaxErrorsSayWhere) {
  EXPECT_THAT(ParseJson("{\"a\": 1,\n\"b\": nan}"), Fails(kInvalid, "line 2"));
  EXPECT_THAT(ParseJson(""), Fails(kInvalid, "not valid JSON"));
  EXPECT_THAT(ParseJson("{} x"), Fails(kInvalid, "not valid JSON"));
  EXPECT_THAT(ParseJson("\"\xff\""), Fails(kInvalid, "UTF-8"));
}

TEST(Utf8Test, OnlyWellFormedTextPasses) {
  EXPECT_TRUE(
      IsUtf8("plain, n\xc3\xa9"
             "e, \xe4\xbd\xa0, \xf0\x9f\x98\x80"));
  EXPECT_FALSE(IsUtf8("\xc0\x80"));          // Overlong.
  EXPECT_FALSE(IsUtf8("\xe0\x9f\xbf"));      // Overlong.
  EXPECT_FALSE(IsUtf8("\xed\xa0\x80"));      // A surrogate.
  EXPECT_FALSE(IsUtf8("\xf4\x90\x80\x80"));  // Over U+10FFFF.
  EXPECT_FALSE(IsUtf8("\xc3"));              // Cut off.
  EXPECT_FALSE(IsUtf8("\x80"));              // No lead byte.
}

TEST(JsonStringTest, EscapesWhatJsonWantsAndNothingElse) {
  EXPECT_EQ(JsonString("a\"b\\c\n\x01\xc3\xa9"),
            "\"a\\\"b\\\\c\\n\\u0001\xc3\xa9\"");
}

}  // namespace
}  // namespace ft
