// SPDX-License-Identifier: Apache-2.0

#include "common/bytes.h"

#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

TEST(BytesTest, UnitsOf1000And1024AreKeptApart) {
  EXPECT_EQ(ParseBytes("24GiB").value(), int64_t{24} << 30);
  EXPECT_EQ(ParseBytes("1.5 GB").value(), 1'500'000'000);
  EXPECT_EQ(ParseBytes("512").value(), 512);
  EXPECT_EQ(ParseBytes("0B").value(), 0);
}

TEST(BytesTest, WhatIsNoAmountIsRefused) {
  for (const char* text :
       {"", "GiB", "1 gib", "-1", "1e3", "9999999999TiB", "1..2GB"}) {
    EXPECT_FALSE(ParseBytes(text).ok()) << text;
  }
}

TEST(BytesTest, AmountsReadBack) {
  EXPECT_EQ(FormatBytes(512), "512 B");
  EXPECT_EQ(FormatBytes(int64_t{3} << 29), "1.5 GiB");
}

}  // namespace
}  // namespace ft
