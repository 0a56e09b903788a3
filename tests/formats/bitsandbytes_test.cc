// SPDX-License-Identifier: Apache-2.0
//
// The stored form of NF4: what is written is read again, and files that are
// wrong in any of its tensors are refused by the tensor's name.

#include "formats/bitsandbytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <limits>

#include "formats/hf_directory.h"
#include "formats/model_writer.h"
#include "tests/formats/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::ft::testing::Fails;
using ::ft::testing::Golden;
using ::ft::testing::ReadAll;
using ::ft::testing::ReadJson;
using ::ft::testing::TestDir;
using ::ft::testing::WriteBytes;
using nlohmann::json;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

// Values that ascend; no real map.
template <size_t N>
std::array<float, N> Ascending() {
  std::array<float, N> map;
  for (size_t i = 0; i < N; ++i) map[i] = static_cast<float>(i) / N - 0.5f;
  return map;
}

// A weight with odd numbers everywhere: 3 x 43 elements, 3 scales.
class Weight {
 public:
  explicit Weight(bool double_quant) {
    stored.shape = {3, 43};
    stored.dtype = DType::kBF16;
    stored.codes = std::as_bytes(std::span(codes_));
    stored.values = Ascending<16>();
    stored.double_quant = double_quant;
    stored.scales = std::as_bytes(std::span(scales_));
    if (double_quant) {
      stored.scales = std::as_bytes(std::span(scale_codes_));
      stored.super_scales = std::as_bytes(std::span(super_scales_));
      stored.scale_values = Ascending<256>();
      stored.offset = 0.0495733805000782f;
    }
  }
  // Spans hold this object's arrays.
  Weight(const Weight&) = delete;

  StoredNf4 stored;

 private:
  std::vector<uint8_t> codes_ = std::vector<uint8_t>(65, 0x7a);
  std::vector<float> scales_ = {0.5f, 1.0f, 2.0f};
  std::vector<uint8_t> scale_codes_ = {1, 128, 255};
  std::vector<float> super_scales_ = {0.25f};
};

void ExpectEqual(const StoredNf4& a, const StoredNf4& b) {
  const auto equal = [](auto x, auto y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end());
  };
  EXPECT_EQ(a.shape, b.shape);
  EXPECT_EQ(a.dtype, b.dtype);
  EXPECT_TRUE(equal(a.codes, b.codes));
  EXPECT_EQ(a.values, b.values);
  EXPECT_EQ(a.double_quant, b.double_quant);
  EXPECT_TRUE(equal(a.scales, b.scales));
  EXPECT_TRUE(equal(a.super_scales, b.super_scales));
  EXPECT_EQ(a.scale_values, b.scale_values);
  EXPECT_EQ(a.offset, b.offset);
}

class StoredNf4Test : public ::testing::TestWithParam<bool> {
 protected:
  void Write() {
    FT_ASSERT_OK_AND_ASSIGN(
        ModelWriter writer,
        ModelWriter::Create(
            dir_.path(), StoredNf4Infos("w", weight_.stored.shape, DType::kBF16,
                                        GetParam())));
    FT_ASSERT_OK(WriteStoredNf4("w", weight_.stored, writer));
    FT_ASSERT_OK(writer.Finish());
  }
  SafetensorsModel Open() {
    return SafetensorsModel::Open(dir_.path()).value();
  }

  const TestDir dir_;
  const Weight weight_{GetParam()};
};

TEST_P(StoredNf4Test, WhatIsWrittenIsReadAgain) {
  Write();
  const SafetensorsModel file = Open();
  EXPECT_TRUE(IsStoredNf4(file, "w"));
  EXPECT_EQ(file.tensors().size(), GetParam() ? 6u : 4u);
  FT_ASSERT_OK_AND_ASSIGN(const StoredNf4 read,
                          ReadStoredNf4(file, "w", {3, 43}));
  ExpectEqual(read, weight_.stored);
}

TEST_P(StoredNf4Test, TheNamesTypesAndShapesAreThoseOfBitsandbytes) {
  Write();
  const SafetensorsModel file = Open();
  const auto is = [&](const char* name, DType dtype,
                      const std::vector<int64_t>& shape) {
    const TensorView* view = file.Find(name);
    ASSERT_NE(view, nullptr) << name;
    EXPECT_EQ(view->dtype, dtype) << name;
    EXPECT_EQ(view->shape, shape) << name;
  };
  is("w", DType::kU8, {65, 1});
  is("w.absmax", GetParam() ? DType::kU8 : DType::kF32, {3});
  is("w.quant_map", DType::kF32, {16});
  const TensorView* state = file.Find("w.quant_state.bitsandbytes__nf4");
  json wanted = {{"quant_type", "nf4"},
                 {"blocksize", 64},
                 {"dtype", "bfloat16"},
                 {"shape", {3, 43}}};
  if (GetParam()) {
    is("w.nested_absmax", DType::kF32, {1});
    is("w.nested_quant_map", DType::kF32, {256});
    wanted["nested_blocksize"] = 256;
    wanted["nested_dtype"] = "float32";
    wanted["nested_offset"] = static_cast<double>(weight_.stored.offset);
  }
  EXPECT_EQ(json::parse(reinterpret_cast<const char*>(state->bytes.data()),
                        reinterpret_cast<const char*>(state->bytes.data()) +
                            state->bytes.size()),
            wanted);
}

// What an offset may be: the file was laid out before it was known.
TEST(StoredNf4SizesTest, EveryOffsetTakesTheSameBytes) {
  for (const float offset :
       {0.0f, 1.0f, 0.1f, std::numeric_limits<float>::max(),
        std::numeric_limits<float>::min(),
        std::numeric_limits<float>::denorm_min()}) {
    const TestDir dir;
    Weight weight(/*double_quant=*/true);
    weight.stored.offset = offset;
    FT_ASSERT_OK_AND_ASSIGN(
        ModelWriter writer,
        ModelWriter::Create(dir.path(),
                            StoredNf4Infos("w", {3, 43}, DType::kBF16, true)));
    FT_ASSERT_OK(WriteStoredNf4("w", weight.stored, writer));
    FT_ASSERT_OK(writer.Finish());
    const SafetensorsModel file = SafetensorsModel::Open(dir.path()).value();
    FT_ASSERT_OK_AND_ASSIGN(const StoredNf4 read,
                            ReadStoredNf4(file, "w", {3, 43}));
    EXPECT_EQ(read.offset, offset);
  }
}

// A tensor as it is changed.
struct Changed {
  TensorInfo info;
  std::string bytes;
};
using Change = std::function<void(std::map<std::string, Changed>&)>;

class BadStoredNf4Test : public ::testing::Test {
 protected:
  absl::Status Read(const Change& change,
                    const std::vector<int64_t>& shape = {3, 43}) {
    const TestDir dir;
    const Weight weight(/*double_quant=*/true);
    ModelWriter writer =
        ModelWriter::Create(dir.path(),
                            StoredNf4Infos("w", {3, 43}, DType::kBF16, true))
            .value();
    FT_CHECK(WriteStoredNf4("w", weight.stored, writer).ok());
    FT_CHECK(writer.Finish().ok());
    std::map<std::string, Changed> tensors;
    {
      const SafetensorsModel file = SafetensorsModel::Open(dir.path()).value();
      for (const TensorView* view : file.tensors()) {
        tensors[view->name] = {
            *view,
            {reinterpret_cast<const char*>(view->bytes.data()),
             view->bytes.size()}};
      }
    }
    change(tensors);
    std::vector<TensorBytes> written;
    for (const auto& [name, tensor] : tensors) {
      written.push_back({tensor.info, std::as_bytes(std::span(tensor.bytes))});
    }
    FT_CHECK(WriteSafetensors(dir / "model.safetensors", written).ok());
    const SafetensorsModel file = SafetensorsModel::Open(dir.path()).value();
    return ReadStoredNf4(file, "w", shape).status();
  }
  // With other JSON in its state.
  absl::Status ReadState(const json& patch) {
    return Read([&](std::map<std::string, Changed>& tensors) {
      Changed& state = tensors["w.quant_state.bitsandbytes__nf4"];
      json value = json::parse(state.bytes);
      value.merge_patch(patch);
      SetText(state, value.dump());
    });
  }
  static void SetText(Changed& tensor, const std::string& text) {
    tensor.bytes = text;
    tensor.info.shape = {static_cast<int64_t>(text.size())};
  }
  // One element fewer.
  static Change Cut(const char* name) {
    return [name](std::map<std::string, Changed>& tensors) {
      Changed& tensor = tensors.at(name);
      --tensor.info.shape[0];
      tensor.bytes.resize(static_cast<size_t>(tensor.info.size_bytes()));
    };
  }
};

TEST_F(BadStoredNf4Test, ATensorThatIsMissingIsNamed) {
  for (const char* name : {"w", "w.absmax", "w.quant_map", "w.nested_quant_map",
                           "w.quant_state.bitsandbytes__nf4"}) {
    const absl::Status status = Read(
        [&](std::map<std::string, Changed>& tensors) { tensors.erase(name); });
    EXPECT_FALSE(status.ok()) << name;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(name));
  }
  // Without these the scales would be fp32.
  EXPECT_THAT(Read([](std::map<std::string, Changed>& tensors) {
                tensors.erase("w.nested_absmax");
              }),
              Fails(kInvalid, "w.absmax: is 3 of U8, wanted 3 of F32"));
}

TEST_F(BadStoredNf4Test, ATensorOfAnotherSizeIsNamedWithBoth) {
  EXPECT_THAT(Read(Cut("w")), Fails(kInvalid, "w: has 64 bytes, wanted 65"));
  EXPECT_THAT(Read(Cut("w.absmax")),
              Fails(kInvalid, "w.absmax: is 2 of U8, wanted 3 of U8"));
  EXPECT_THAT(Read(Cut("w.quant_map")), Fails(kInvalid, "w.quant_map: is 15"));
  EXPECT_THAT(Read(Cut("w.nested_absmax")),
              Fails(kInvalid, "w.nested_absmax: is 0 of F32, wanted 1"));
  EXPECT_THAT(Read(Cut("w.nested_quant_map")),
              Fails(kInvalid, "w.nested_quant_map: is 255"));
}

TEST_F(BadStoredNf4Test, ATensorOfAnotherTypeIsNamed) {
  for (const char* name :
       {"w.absmax", "w.quant_map", "w.nested_absmax", "w.nested_quant_map"}) {
    EXPECT_THAT(
        Read([&](std::map<std::string, Changed>& tensors) {
          Changed& tensor = tensors.at(name);
          tensor.info.dtype = DType::kI8;
          tensor.info.shape = {static_cast<int64_t>(tensor.bytes.size())};
        }),
        Fails(kInvalid, absl::StrCat(name, ": is ")));
  }
}

TEST_F(BadStoredNf4Test, CodesUnderAWiderTypeAreTheSameBytes) {
  // 66 bytes would be 33 of BF16; 65 are none.
  EXPECT_THAT(Read([](std::map<std::string, Changed>& tensors) {
                Changed& codes = tensors.at("w");
                codes.bytes.resize(66);
                codes.info.dtype = DType::kBF16;
                codes.info.shape = {33, 1};
              }),
              Fails(kInvalid, "w: has 66 bytes, wanted 65"));
}

TEST_F(BadStoredNf4Test, MapsMustAscendAndBeFinite) {
  for (const char* name : {"w.quant_map", "w.nested_quant_map"}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(), -2.0f}) {
      EXPECT_THAT(Read([&](std::map<std::string, Changed>& tensors) {
                    std::string& bytes = tensors.at(name).bytes;
                    bytes.replace(12, sizeof(bad), ft::testing::Bytes(bad));
                  }),
                  Fails(kInvalid, absl::StrCat(name, ": holds values that")));
    }
  }
}

TEST_F(BadStoredNf4Test, AStateThatSaysSomethingElseIsNamedByItsKey) {
  EXPECT_THAT(ReadState({{"quant_type", "fp4"}}),
              Fails(kInvalid, "nf4: quant_type: \"fp4\", wanted \"nf4\""));
  EXPECT_THAT(ReadState({{"quant_type", 4}}), Fails(kInvalid, "quant_type"));
  EXPECT_THAT(ReadState({{"blocksize", 128}}),
              Fails(kUnimplemented, "blocksize: 128 is not supported"));
  EXPECT_THAT(ReadState({{"blocksize", 0}}), Fails(kInvalid, "blocksize"));
  EXPECT_THAT(ReadState({{"nested_blocksize", 512}}),
              Fails(kUnimplemented, "nested_blocksize: 512"));
  EXPECT_THAT(ReadState({{"dtype", "int8"}}),
              Fails(kInvalid, "dtype: \"int8\", wanted"));
  EXPECT_THAT(ReadState({{"nested_offset", nullptr}}),
              Fails(kInvalid, "nested_offset: is missing"));
  EXPECT_THAT(ReadState({{"nested_offset", 1e300}}),
              Fails(kInvalid, "nested_offset"));
  for (const json& shape :
       {json(nullptr), json(129), json::array(), json({43, 3}), json({3, -43}),
        json({3, 43, 1}), json({3.0, 43.0}), json({"3", "43"})}) {
    EXPECT_THAT(ReadState({{"shape", shape}}),
                Fails(kInvalid, "shape: is not the [3, 43]"))
        << shape;
  }
}

TEST_F(BadStoredNf4Test, AStateThatIsNoJsonIsRefused) {
  for (const std::string& text :
       {std::string("{"), std::string("[]"), std::string("null"),
        std::string("\xff"), std::string("{\"a\":[[[[[[]]]]]]}"),
        std::string("{\"blocksize\":64,\"blocksize\":64}"), std::string(),
        std::string(5000, ' ')}) {
    EXPECT_THAT(Read([&](std::map<std::string, Changed>& tensors) {
                  SetText(tensors["w.quant_state.bitsandbytes__nf4"], text);
                }),
                Fails(kInvalid, "w.quant_state.bitsandbytes__nf4: "))
        << text.substr(0, 20);
  }
}

TEST_F(BadStoredNf4Test, TheShapeIsTheConfigs) {
  EXPECT_THAT(Read([](auto&) {}, {43, 3}), Fails(kInvalid, "shape"));
  EXPECT_THAT(Read([](auto&) {}, {1 << 20, 1 << 20}), Fails(kInvalid, "shape"));
}

INSTANTIATE_TEST_SUITE_P(Forms, StoredNf4Test, ::testing::Bool(),
                         [](const auto& tested) {
                           return tested.param ? "Nested" : "Plain";
                         });

TEST(QuantizationConfigTest, IsAddedAndTakenAwayAgain) {
  const std::string config = ReadAll(Golden("models/tiny_chat/config.json"));
  const std::string with = WithNf4Config(config, DType::kBF16, true);
  const json added = json::parse(with)["quantization_config"];
  EXPECT_EQ(added["quant_method"], "bitsandbytes");
  EXPECT_EQ(added["load_in_4bit"], true);
  EXPECT_EQ(added["bnb_4bit_quant_type"], "nf4");
  EXPECT_EQ(added["bnb_4bit_use_double_quant"], true);
  EXPECT_EQ(added["bnb_4bit_compute_dtype"], "bfloat16");
  EXPECT_EQ(added["llm_int8_skip_modules"], json({"lm_head"}));
  FT_ASSERT_OK_AND_ASSIGN(const ModelSpec spec, ParseModelSpec(with));
  EXPECT_EQ(spec.quantization, Nf4Quantization{.double_quant = true});

  const json without =
      json::parse(WithoutQuantizationConfig(with, DType::kF16));
  json wanted = json::parse(config);
  wanted["dtype"] = "float16";
  EXPECT_EQ(without, wanted);
}

TEST(ModelWriterTest, FilesAreFilledInOrderAndNoTensorIsSplit) {
  const TestDir dir;
  const std::vector<TensorInfo> infos = {{"a", DType::kF32, {4}},
                                         {"b", DType::kF32, {2}},
                                         {"c", DType::kF32, {20}},
                                         {"d", DType::kF32, {1}}};
  FT_ASSERT_OK_AND_ASSIGN(
      ModelWriter writer,
      ModelWriter::Create(dir.path(), infos, /*max_shard_bytes=*/24));
  for (const TensorInfo& info : infos) {
    const std::vector<float> values(static_cast<size_t>(info.numel()),
                                    static_cast<float>(info.name[0]));
    FT_ASSERT_OK(writer.Append(info.name, std::as_bytes(std::span(values))));
  }
  FT_ASSERT_OK(writer.Finish());
  EXPECT_EQ(ListDir(dir.path()).value(),
            (std::vector<std::string>{"model-00001-of-00003.safetensors",
                                      "model-00002-of-00003.safetensors",
                                      "model-00003-of-00003.safetensors",
                                      "model.safetensors.index.json"}));
  const json index = ReadJson(dir / "model.safetensors.index.json");
  EXPECT_EQ(index["metadata"]["total_size"], 108);
  EXPECT_EQ(index["weight_map"]["b"], "model-00001-of-00003.safetensors");
  EXPECT_EQ(index["weight_map"]["d"], "model-00003-of-00003.safetensors");
  FT_ASSERT_OK_AND_ASSIGN(const SafetensorsModel model,
                          SafetensorsModel::Open(dir.path()));
  EXPECT_EQ(model.tensors().size(), 4u);
}

}  // namespace
}  // namespace ft
