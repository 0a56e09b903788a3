// SPDX-License-Identifier: Apache-2.0

#include "formats/gguf_blocks.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "absl/strings/ascii.h"
#include "formats/safetensors.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::ft::testing::Golden;
using ::ft::testing::ReadJson;
using ::ft::testing::Sha256OfValues;

class BlockTest : public ::testing::TestWithParam<GgufType> {};

TEST_P(BlockTest, DecodesToTheBitsOfTheReference) {
  const GgufTypeInfo& info = InfoOf(GetParam());
  const std::string name = absl::AsciiStrToLower(info.name);
  FT_ASSERT_OK_AND_ASSIGN(
      const SafetensorsFile golden,
      SafetensorsFile::Open(Golden("quant/gguf.safetensors")));
  FT_ASSERT_OK_AND_ASSIGN(const TensorView* bytes, golden.Get(name + ".bytes"));
  FT_ASSERT_OK_AND_ASSIGN(const TensorView* expected,
                          golden.Get(name + ".values"));

  std::vector<float> values(expected->numel());
  DecodeGgufBlocks(info.type, bytes->bytes, values);

  EXPECT_EQ(std::memcmp(values.data(), expected->bytes.data(),
                        expected->bytes.size()),
            0);
  const nlohmann::json types = ReadJson(Golden("quant/gguf.json"))["types"];
  EXPECT_EQ(Sha256OfValues(values), types[name]["sha256_values"]);
  EXPECT_EQ(static_cast<int>(info.type), types[name]["id"]);
  EXPECT_EQ(info.block_elements, types[name]["block"]);
  EXPECT_EQ(info.block_bytes, types[name]["bytes"]);
}

INSTANTIATE_TEST_SUITE_P(AllQuantised, BlockTest,
                         ::testing::Values(GgufType::kQ4_0, GgufType::kQ4_1,
                                           GgufType::kQ5_0, GgufType::kQ5_1,
                                           GgufType::kQ8_0, GgufType::kQ4_K,
                                           GgufType::kQ5_K, GgufType::kQ6_K),
                         [](const auto& tested) {
                           return std::string(InfoOf(tested.param).name);
                         });

TEST(BlockTypeTest, EveryTypeThatIsReadIsInTheMessage) {
  int read = 0;
  for (uint32_t type = 0; type < 64; ++type) {
    const std::optional<GgufTypeInfo> info = FindGgufType(type);
    if (!info) continue;
    ++read;
    EXPECT_EQ(info->name, GgufTypeName(type));
    EXPECT_NE(kGgufTypeNames.find(info->name), absl::string_view::npos);
  }
  EXPECT_EQ(read, 11);
  EXPECT_EQ(GgufTypeName(1000), "unknown");
}

}  // namespace
}  // namespace ft
