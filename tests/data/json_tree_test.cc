// SPDX-License-Identifier: Apache-2.0
//
// Trees of JSON that strangers wrote: order, keys that stand twice, depth.

#include "data/json_tree.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace ft {
namespace {

std::string Nested(int depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

TEST(JsonTreeTest, ItIsWhatTheLibraryReads) {
  for (const char* text :
       {"1", "-2", "1.5e3", "\"a\\u00e4\"", "null", "[]", "{}",
        R"({"b": 1, "a": [true, {"x": null}, "y"], "c": {"b": {"b": 2}}})"}) {
    Json tree;
    EXPECT_EQ(ParseJsonTree(text, tree), std::nullopt) << text;
    EXPECT_EQ(tree, Json::parse(text)) << text;
    EXPECT_EQ(tree.dump(), Json::parse(text).dump()) << text;
  }
}

TEST(JsonTreeTest, AKeyThatStandsTwiceIsAFaultAtItsPlace) {
  Json tree;
  // The same key in another object is another one; a value is no key.
  EXPECT_EQ(ParseJsonTree(R"([{"a": {"a": "a"}}, {"a": ["a", "b"]}])", tree),
            std::nullopt);
  std::string many = "{";
  for (int i = 0; i < 40; ++i) absl::StrAppend(&many, "\"", i, "\" : 0,");
  for (const std::string& begin :
       {std::string(R"({"a": 1, )"), std::string(R"({"a": "\"a\": 1", )"),
        std::string(R"({"b": {"a": 1}, "\u0061": {"a": 1}, )"),
        many + R"("a": 1, )"}) {
    const std::optional<JsonFault> fault =
        ParseJsonTree(begin + R"("a" :2})", tree);
    ASSERT_TRUE(fault.has_value()) << begin;
    EXPECT_EQ(fault->kind, JsonFault::Kind::kDuplicate) << begin;
    EXPECT_EQ(fault->offset, begin.size()) << begin;
    EXPECT_TRUE(tree.is_discarded());
  }
}

TEST(JsonTreeTest, InATextOfARowTheLastValueCounts) {
  EXPECT_EQ(ParseJsonText(R"({"a": 1, "b": 2, "a": [3]})").dump(),
            R"({"a":[3],"b":2})");
}

TEST(JsonTreeTest, AnObjectOfManyKeysKeepsThemAll) {
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) absl::StrAppend(&text, "\"", i, "\":0,");
  text += "\"17\":1,\"last\":2}";
  const Json tree = ParseJsonText(text);
  EXPECT_EQ(tree.size(), 200'001u);
  EXPECT_EQ(tree["17"], 1);
  EXPECT_EQ(tree.back(), 2);
}

TEST(JsonTreeTest, NestingIsBounded) {
  Json tree;
  EXPECT_EQ(ParseJsonTree(Nested(kMaxJsonDepth), tree), std::nullopt);
  const std::optional<JsonFault> fault =
      ParseJsonTree(Nested(kMaxJsonDepth + 1), tree);
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->kind, JsonFault::Kind::kDepth);
  EXPECT_TRUE(tree.is_discarded());
  EXPECT_TRUE(ParseJsonText(std::string(1'000'000, '[')).is_discarded());
}

TEST(JsonTreeTest, AFaultHasItsPlace) {
  Json tree;
  EXPECT_EQ(ParseJsonTree("[1, }", tree)->offset, 4u);
  EXPECT_EQ(ParseJsonTree("\"\xff\"", tree)->kind, JsonFault::Kind::kEncoding);
  EXPECT_TRUE(ParseJsonTree("1e999", tree).has_value());
  EXPECT_TRUE(ParseJsonTree("", tree).has_value());
}

}  // namespace
}  // namespace ft
