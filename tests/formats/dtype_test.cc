// SPDX-License-Identifier: Apache-2.0

#include "formats/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::ft::testing::Fails;

TEST(DTypeTest, NamesGoThereAndBack) {
  for (int i = 0; i <= static_cast<int>(DType::kU64); ++i) {
    const DType dtype = static_cast<DType>(i);
    EXPECT_EQ(DTypeFromName(NameOf(dtype)), dtype);
    EXPECT_GT(SizeOf(dtype), 0);
  }
  EXPECT_EQ(DTypeFromName("F31"), std::nullopt);
}

TEST(HalfTest, TheWorthOfEveryHalfIsThatOfTheDefinition) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = bits >> 10 & 31;
    const int fraction = bits & 1023;
    const double sign = bits >> 15 ? -1 : 1;
    const float value = HalfToFloat(static_cast<uint16_t>(bits));
    if (exponent == 31 && fraction != 0) {
      EXPECT_TRUE(std::isnan(value)) << bits;
    } else if (exponent == 31) {
      EXPECT_EQ(value, sign * std::numeric_limits<float>::infinity()) << bits;
    } else if (exponent == 0) {
      EXPECT_EQ(value, std::ldexp(sign * fraction, -24)) << bits;
      EXPECT_EQ(std::signbit(value), sign < 0) << bits;
    } else {
      EXPECT_EQ(value, std::ldexp(sign * (1024 + fraction), exponent - 25))
          << bits;
    }
  }
}

TEST(HalfTest, EveryHalfSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    if (std::isnan(HalfToFloat(half))) continue;
    EXPECT_EQ(FloatToHalf(HalfToFloat(half)), half);
  }
}

TEST(HalfTest, RoundsToNearestAndTiesToEven) {
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-11f), 0x3c00);  // A tie, down.
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-11f + 0x1p-20f), 0x3c01);
  EXPECT_EQ(FloatToHalf(1.0f + 3 * 0x1p-11f), 0x3c02);  // A tie, up.
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);      // Infinity.
  EXPECT_EQ(FloatToHalf(0x1p-25f), 0x0000);      // A tie, down.
  EXPECT_EQ(FloatToHalf(3 * 0x1p-25f), 0x0002);  // A tie, up.
  EXPECT_EQ(FloatToHalf(-0.0f), 0x8000);
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(std::nanf("")))));
}

TEST(Bfloat16Test, RoundsToNearestAndTiesToEven) {
  EXPECT_EQ(FloatToBfloat16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(FloatToBfloat16(1.0f + 3 * 0x1p-8f), 0x3f82);
  EXPECT_EQ(FloatToBfloat16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(
      Bfloat16ToFloat(FloatToBfloat16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_EQ(Bfloat16ToFloat(0xc0a0), -5.0f);
}

TEST(ToFloatTest, ConvertsUnalignedElements) {
  const std::vector<uint8_t> bytes = {0xff, 0x00, 0x3c, 0x00, 0xc0};
  std::vector<float> values(2);
  FT_ASSERT_OK(
      ToFloat(DType::kF16, std::as_bytes(std::span(bytes).subspan(1)), values));
  EXPECT_EQ(values, (std::vector<float>{1.0f, -2.0f}));
}

TEST(ToFloatTest, RefusesIntegers) {
  const std::vector<int32_t> bytes = {1};
  std::vector<float> values(1);
  EXPECT_THAT(ToFloat(DType::kI32, std::as_bytes(std::span(bytes)), values),
              Fails(absl::StatusCode::kInvalidArgument, "I32"));
}

}  // namespace
}  // namespace ft
