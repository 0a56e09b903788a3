// SPDX-License-Identifier: Apache-2.0

#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/formats/gguf_builder.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::ft::testing::Bytes;
using ::ft::testing::Fails;
using ::ft::testing::GgufBuilder;
using ::ft::testing::Golden;
using ::ft::testing::ReadAll;
using ::ft::testing::TestDir;
using ::ft::testing::WriteBytes;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;

class GgufTest : public ::testing::Test {
 protected:
  absl::StatusOr<GgufFile> OpenBytes(absl::string_view bytes) {
    WriteBytes(dir_ / "model.gguf", bytes);
    return GgufFile::Open(dir_ / "model.gguf");
  }

  TestDir dir_;
};

TEST_F(GgufTest, ReadsMetadataAndTensorsOfTheReference) {
  FT_ASSERT_OK_AND_ASSIGN(const GgufFile file,
                          GgufFile::Open(Golden("models/tiny_chat.gguf")));
  EXPECT_EQ(file.GetString("general.architecture").value(), "llama");
  EXPECT_EQ(file.GetInt("llama.block_count").value(), 2);
  EXPECT_FLOAT_EQ(
      file.GetFloat("llama.attention.layer_norm_rms_epsilon").value(), 1e-5);
  EXPECT_FALSE(file.GetBool("tokenizer.ggml.add_bos_token").value());
  EXPECT_EQ(file.GetStrings("tokenizer.ggml.tokens")->size(), 768u);
  EXPECT_EQ(file.GetInts("tokenizer.ggml.token_type")->at(1), 3);
  EXPECT_EQ(file.tensors().size(), 20u);
  const GgufTensor* up = file.Find("blk.1.ffn_up.weight");
  ASSERT_NE(up, nullptr);
  EXPECT_EQ(up->type, GgufType::kQ5_0);
  EXPECT_EQ(up->shape, (std::vector<int64_t>{128, 64}));
}

TEST_F(GgufTest, AMissingKeyAndAKeyOfAnotherTypeAreNamed) {
  FT_ASSERT_OK_AND_ASSIGN(
      const GgufFile file,
      OpenBytes(GgufBuilder().String("s", "x").F32("f", 2).Build()));
  EXPECT_THAT(file.GetInt("none"),
              Fails(absl::StatusCode::kNotFound, "metadata none: is missing"));
  EXPECT_THAT(file.GetInt("s"),
              Fails(kInvalid, "metadata s: is not an integer"));
  EXPECT_THAT(file.GetString("f"), Fails(kInvalid, "is not a string"));
  EXPECT_THAT(file.GetStrings("s"), Fails(kInvalid, "array of strings"));
  EXPECT_THAT(file.GetInts("f"), Fails(kInvalid, "array of integers"));
  EXPECT_EQ(file.IntOr("none", 5).value(), 5);
  EXPECT_THAT(file.IntOr("s", 5), Fails(kInvalid, "is not an integer"));
}

TEST_F(GgufTest, IntegersOfEveryWidthAreRead) {
  FT_ASSERT_OK_AND_ASSIGN(
      const GgufFile file,
      OpenBytes(GgufBuilder()
                    .Raw("u8", 0, Bytes<uint8_t>(200))
                    .Raw("i8", 1, Bytes<int8_t>(-5))
                    .Raw("i16", 3, Bytes<int16_t>(-300))
                    .Raw("u64", 10, Bytes<uint64_t>(1ull << 40))
                    .Raw("i64", 11, Bytes<int64_t>(-1))
                    .Raw("big", 10, Bytes<uint64_t>(1ull << 63))
                    .Raw("f64", 12, Bytes<double>(0.1))
                    .Build()));
  EXPECT_EQ(file.GetInt("u8").value(), 200);
  EXPECT_EQ(file.GetInt("i8").value(), -5);
  EXPECT_EQ(file.GetInt("i16").value(), -300);
  EXPECT_EQ(file.GetInt("u64").value(), int64_t{1} << 40);
  EXPECT_EQ(file.GetInt("i64").value(), -1);
  EXPECT_THAT(file.GetInt("big"), Fails(kInvalid, "integer"));
  EXPECT_EQ(file.GetFloat("f64").value(), 0.1);
  EXPECT_EQ(file.keys().size(), 7u);
}

struct BadGguf {
  std::string name;
  std::string bytes;
  absl::StatusCode code;
  std::string message;
};

std::string Header(uint32_t version, uint64_t tensors, uint64_t keys) {
  return absl::StrCat("GGUF", Bytes(version), Bytes(tensors), Bytes(keys));
}

std::vector<BadGguf> BadGgufs() {
  const auto tensor = [](std::vector<uint64_t> dims, uint32_t type,
                         uint64_t offset, size_t data) {
    return GgufBuilder().TensorInfo("w", dims, type, offset).Data(data).Build();
  };
  return {
      {"Empty", "", kInvalid, "does not begin with \"GGUF\""},
      {"OtherMagic", "GGML0123456789", kInvalid, "does not begin"},
      {"Pickle", absl::StrCat("PK\x03\x04", std::string(20, '\0')), kInvalid,
       "never unpickled"},
      {"Version2", Header(2, 0, 0), kUnimplemented, "version 2"},
      {"BigEndian", Header(0x03000000, 0, 0), kUnimplemented, "big-endian"},
      {"CutHeader", Header(3, 0, 0).substr(0, 20), kInvalid, "cut off"},
      {"ManyTensors", Header(3, (1ull << 20) + 1, 0), kExhausted,
       "1048577 tensors, the limit is 1048576"},
      {"ManyKeys", Header(3, 0, ~0ull), kExhausted, "the limit is 65536"},
      {"CutKeys", Header(3, 0, 5), kInvalid, "cut off"},
      {"HugeKey", absl::StrCat(Header(3, 0, 1), Bytes<uint64_t>(257)),
       kExhausted, "the limit is 256"},
      {"HugeString",
       absl::StrCat(Header(3, 0, 1), GgufBuilder::Text("k"), Bytes<uint32_t>(8),
                    Bytes<uint64_t>((1 << 20) + 1)),
       kExhausted, "the limit is 1048576"},
      {"StringBeyondTheFile",
       absl::StrCat(Header(3, 0, 1), GgufBuilder::Text("k"), Bytes<uint32_t>(8),
                    Bytes<uint64_t>(100)),
       kInvalid, "cut off: 100 bytes wanted"},
      {"HugeArray",
       GgufBuilder()
           .Raw("k", 9, Bytes<uint32_t>(0) + Bytes<uint64_t>((1 << 24) + 1))
           .Build(),
       kExhausted, "the limit is 16777216"},
      {"ArrayBeyondTheFile",
       GgufBuilder()
           .Raw("k", 9, Bytes<uint32_t>(12) + Bytes<uint64_t>(1 << 24))
           .Build(),
       kInvalid, "cut off"},
      {"ArrayOfArrays",
       GgufBuilder()
           .Raw("k", 9, Bytes<uint32_t>(9) + Bytes<uint64_t>(1))
           .Build(),
       kInvalid, "arrays of value type 9"},
      {"UnknownValueType", GgufBuilder().Raw("k", 13, "").Build(), kInvalid,
       "unknown value type 13"},
      {"KeyTwice", GgufBuilder().U32("k", 1).U32("k", 1).Build(), kInvalid,
       "\"k\": stands twice"},
      {"FiveDims", tensor({1, 1, 1, 1, 1}, 0, 0, 4), kInvalid, "5 dimensions"},
      {"EmptyDim", tensor({0}, 0, 0, 0), kInvalid, "a dimension of 0"},
      {"ProductOverflows", tensor({1ull << 40, 1ull << 40}, 0, 0, 0), kInvalid,
       "a dimension of"},
      {"TypeWithoutReader", tensor({256}, 10, 0, 84), kUnimplemented,
       "type Q2_K (10) is not supported; supported: F32"},
      {"UnknownType", tensor({256}, 4711, 0, 84), kUnimplemented,
       "type unknown (4711)"},
      {"RowsNoWholeBlocks", tensor({48, 2}, 2, 0, 54), kInvalid,
       "no whole blocks of Q4_0"},
      {"Unaligned", tensor({1}, 0, 4, 8), kInvalid, "not aligned to 32"},
      {"CutData", tensor({64}, 0, 0, 255), kInvalid, "cut off: 256 bytes"},
      {"OffsetBeyond", tensor({1}, 0, 1ull << 40, 4), kInvalid, "cut off"},
      {"TensorTwice",
       GgufBuilder()
           .TensorInfo("w", {1}, 0, 0)
           .TensorInfo("w", {1}, 0, 32)
           .Data(36)
           .Build(),
       kInvalid, "stands twice"},
      {"Overlap",
       GgufBuilder()
           .TensorInfo("v", {16}, 0, 0)
           .TensorInfo("w", {1}, 0, 32)
           .Data(64)
           .Build(),
       kInvalid, "overlaps"},
      {"OddAlignment", GgufBuilder().U32("general.alignment", 36).Build(),
       kInvalid, "general.alignment: 36"},
      {"HugeAlignment",
       GgufBuilder().U32("general.alignment", 1u << 31).Build(), kInvalid,
       "[32, 4096]"},
  };
}

class BadGgufTest : public GgufTest,
                    public ::testing::WithParamInterface<BadGguf> {};

TEST_P(BadGgufTest, IsRefusedByName) {
  const absl::StatusOr<GgufFile> file = OpenBytes(GetParam().bytes);
  EXPECT_THAT(file, Fails(GetParam().code, GetParam().message));
  EXPECT_THAT(file, Fails(GetParam().code, dir_ / "model.gguf"));
}

INSTANTIATE_TEST_SUITE_P(All, BadGgufTest, ::testing::ValuesIn(BadGgufs()),
                         [](const auto& info) { return info.param.name; });

TEST_F(GgufTest, AFileCutAnywhereIsRefused) {
  const std::string whole = ReadAll(Golden("models/tiny_chat.gguf"));
  for (size_t size = 0; size < whole.size() - 64; size += 991) {
    EXPECT_FALSE(OpenBytes(absl::string_view(whole).substr(0, size)).ok())
        << size;
  }
}

TEST_F(GgufTest, RandomDamageNeverLeavesTheFile) {
  const std::string whole = ReadAll(Golden("models/tiny_chat.gguf"));
  FT_ASSERT_OK_AND_ASSIGN(const GgufFile intact, OpenBytes(whole));
  const size_t header = whole.size() - intact.tensors().size() * 64;
  std::mt19937 random(11);
  for (int i = 0; i < 300; ++i) {
    std::string damaged = whole;
    for (int k = 0; k < 3; ++k) damaged[random() % header] = random() % 256;
    const absl::StatusOr<GgufFile> file = OpenBytes(damaged);
    if (!file.ok()) continue;
    for (const GgufTensor& tensor : file->tensors()) {
      std::vector<float> values(tensor.numel());
      DecodeGgufBlocks(tensor.type, tensor.bytes, values);
    }
    file->GetStrings("tokenizer.ggml.tokens").status().IgnoreError();
  }
}

}  // namespace
}  // namespace ft
