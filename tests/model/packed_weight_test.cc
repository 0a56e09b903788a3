// SPDX-License-Identifier: Apache-2.0
//
// QLoRA: weights that are quantised while they are read, or read quantised, and
// what a model computes with them. Expected values are those of bitsandbytes
// (tests/golden/quant).

#include "model/packed_weight.h"

#include <ATen/ops/cat.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "common/file.h"
#include "model/generate.h"
#include "model/quantize_model.h"
#include "model/spans.h"
#include "tests/model/golden.h"
#include "tests/model/packed_model.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::ExpandedCopy;
using testing::Fails;
using testing::GoldenJson;
using testing::GoldenPath;
using testing::GoldenTensors;
using testing::LoadGoldenModel;
using testing::PackRows;
using testing::Supervised;
using testing::TestDir;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr Nf4Quantization kSingle{.double_quant = false};

std::vector<uint8_t> BytesOf(const at::Tensor& tensor) {
  std::vector<uint8_t> bytes(tensor.nbytes());
  std::memcpy(bytes.data(), tensor.data_ptr(), bytes.size());
  return bytes;
}
std::vector<uint8_t> BytesOf(const TensorView& view) {
  std::vector<uint8_t> bytes(view.bytes.size());
  std::memcpy(bytes.data(), view.bytes.data(), bytes.size());
  return bytes;
}
bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && BytesOf(a) == BytesOf(b);
}
at::Tensor Expanded(PackedWeight packed) {
  packed.scratch = std::make_shared<WeightScratch>();
  return packed.Expand().clone();
}
double RelativeL2(const at::Tensor& got, const at::Tensor& want) {
  return ((got - want).norm() / want.norm()).item<double>();
}

class PackedGoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  const TensorView& View(const std::string& suffix = "") const {
    return *goldens_.file().Get(GetParam() + suffix).value();
  }
  const GoldenTensors goldens_{"quant/nf4.safetensors"};
};

TEST_P(PackedGoldenTest, ATensorQuantisedPieceByPieceHasBitsandbytesBytes) {
  FT_ASSERT_OK_AND_ASSIGN(const PackedWeight packed,
                          QuantizeTensor(View(), kSingle));
  EXPECT_EQ(BytesOf(packed.codes_u8), BytesOf(View(".nf4.packed")));
  EXPECT_EQ(BytesOf(packed.scales), BytesOf(View(".nf4.absmax")));
  const at::Tensor got = Expanded(packed);
  if (View().dtype == DType::kF32) {
    EXPECT_TRUE(
        SameBits(got, goldens_[GetParam() + std::string(".nf4.dequantised")]));
  }
  FT_ASSERT_OK_AND_ASSIGN(const PackedWeight nested,
                          QuantizeTensor(View(), Nf4Quantization{}));
  EXPECT_EQ(BytesOf(nested.codes_u8), BytesOf(packed.codes_u8));
  // Our map of scales differs from theirs by 6e-8; theirs is below.
  EXPECT_LE((Expanded(nested) - got).abs().max().item<double>(),
            0.011 * got.abs().max().item<double>());
}

TEST_P(PackedGoldenTest, AStoredWeightExpandsWithItsOwnMapsToTheBit) {
  const std::string key = GetParam() + std::string(".nf4_dq");
  const auto bytes = [&](const std::string& name) {
    return goldens_.file().Get(name).value()->bytes;
  };
  StoredNf4 stored{.shape = View().shape,
                   .dtype = View().dtype,
                   .codes = bytes(key + ".packed"),
                   .double_quant = true,
                   .scales = bytes(key + ".absmax_codes"),
                   .super_scales = bytes(key + ".absmax_absmax"),
                   .offset = goldens_[key + ".absmax_offset"].item<float>()};
  std::memcpy(stored.values.data(), bytes("code.nf4").data(), 64);
  std::memcpy(stored.scale_values.data(), bytes("nested_code").data(), 1024);
  EXPECT_NE(stored.scale_values, DynamicCode::Signed().map());
  FT_ASSERT_OK_AND_ASSIGN(const PackedWeight packed, UnpackStored(stored));
  const at::Tensor got = Expanded(packed);
  if (View().dtype == DType::kF32) {
    EXPECT_TRUE(SameBits(got, goldens_[key + ".dequantised"]));
  }
  const StoredNf4 again = packed.AsStored(stored.dtype);
  EXPECT_EQ(again.scale_values, stored.scale_values);
  EXPECT_EQ(again.offset, stored.offset);
}

INSTANTIATE_TEST_SUITE_P(Sources, PackedGoldenTest,
                         ::testing::Values("normal", "normal_bf16", "outliers",
                                           "ragged", "ragged_bf16", "zeros",
                                           "big"),
                         [](const auto& tested) {
                           return std::string(tested.param);
                         });

std::vector<float> Normal(size_t size) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}
TensorView ViewOf(const std::vector<float>& values) {
  TensorView view;
  view.name = "w";
  view.shape = {1, static_cast<int64_t>(values.size())};
  view.bytes = std::as_bytes(std::span(values));
  return view;
}

// Sizes around a byte, a block, a run of weights that share a super-scale.
TEST(PackedWeightTest, PiecesGiveTheBytesOfTheWholeOnAnyNumberOfThreads) {
  for (const size_t size : {1, 63, 65, 16383, 16384, 16385, 3 * 16384 + 77}) {
    const std::vector<float> values = Normal(size);
    const auto n = static_cast<int64_t>(size);
    std::vector<uint8_t> codes(static_cast<size_t>(Nf4Bytes(n)));
    std::vector<float> absmax(static_cast<size_t>(Nf4Blocks(n)));
    Nf4Quantize(values, codes, absmax);
    std::vector<float> expanded(size);
    std::vector<uint8_t> scale_codes(absmax.size());
    std::vector<float> super(static_cast<size_t>(
        DynamicBlocks(static_cast<int64_t>(absmax.size()))));
    const float offset =
        DynamicCode::Signed().QuantizeScales(absmax, scale_codes, super);
    DynamicCode::Signed().DequantizeScales(scale_codes, super, offset, absmax);
    Nf4Dequantize(codes, absmax, expanded);

    for (const int threads : {1, 2}) {
      at::set_num_threads(threads);
      FT_ASSERT_OK_AND_ASSIGN(
          const PackedWeight packed,
          QuantizeTensor(ViewOf(values), Nf4Quantization{}));
      EXPECT_EQ(BytesOf(packed.codes_u8), codes) << size;
      EXPECT_EQ(BytesOf(packed.scales), scale_codes) << size;
      EXPECT_EQ(packed.offset, offset) << size;
      const at::Tensor got = Expanded(packed);
      EXPECT_EQ(std::memcmp(got.data_ptr(), expanded.data(), 4 * size), 0)
          << size;
    }
    at::set_num_threads(1);
  }
}

TEST(PackedWeightTest, AShardCutOnRunsExpandsAlone) {
  const int64_t size = 5 * kPackedRun + 100, cut = 2 * kPackedRun;
  const std::vector<float> values = Normal(size);
  for (const bool double_quant : {false, true}) {
    FT_ASSERT_OK_AND_ASSIGN(
        const PackedWeight whole,
        QuantizeTensor(ViewOf(values), {.double_quant = double_quant}));
    std::vector<at::Tensor> parts;
    for (const auto& [begin, end] :
         {std::pair{int64_t{0}, cut}, std::pair{cut, size}}) {
      PackedWeight part = whole;  // Its tensors are views.
      part.shape = {1, end - begin};
      const auto narrow = [&](at::Tensor& tensor, int64_t block) {
        if (!tensor.defined()) return;
        tensor = tensor.narrow(0, begin / block,
                               (end + block - 1) / block - begin / block);
      };
      narrow(part.codes_u8, 2);
      narrow(part.scales, kNf4Block);
      narrow(part.super_scales_f32, kPackedRun);
      parts.push_back(Expanded(part));
    }
    EXPECT_TRUE(SameBits(at::cat(parts, 1), Expanded(whole)));
  }
}

TEST(PackedWeightTest, ItCostsWhatThePaperSays) {
  const std::vector<float> values = Normal(size_t{1} << 20);
  FT_ASSERT_OK_AND_ASSIGN(const PackedWeight nested,
                          QuantizeTensor(ViewOf(values), Nf4Quantization{}));
  FT_ASSERT_OK_AND_ASSIGN(const PackedWeight single,
                          QuantizeTensor(ViewOf(values), kSingle));
  const double n = static_cast<double>(values.size());
  EXPECT_NEAR(static_cast<double>(nested.size_bytes()) / n, 0.51587, 1e-5);
  EXPECT_NEAR(static_cast<double>(single.size_bytes()) / n, 0.5625, 1e-5);
}

TEST(PackedWeightTest, TheSharedMemoryGrowsToTheLargestAndNoFurther) {
  WeightScratch scratch;
  scratch.Take({4, 8});
  EXPECT_EQ(scratch.size_bytes(), 128);
  scratch.Take({2, 8});
  EXPECT_EQ(scratch.size_bytes(), 128);
  EXPECT_EQ(scratch.Take({5, 8}).sizes().vec(), (std::vector<int64_t>{5, 8}));
  EXPECT_EQ(scratch.size_bytes(), 160);
}

TEST(PackedWeightTest, WhatIsNoFiniteFloatIsRefusedByItsName) {
  std::vector<float> values = Normal(40'000);
  values[39'000] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(QuantizeTensor(ViewOf(values), Nf4Quantization{}),
              Fails(kInvalid, "tensor w: holds a value that is not finite"));
  TensorView bytes;
  bytes.name = "b";
  bytes.dtype = DType::kI8;
  bytes.shape = {4, 4};
  bytes.bytes = std::as_bytes(std::span(values)).first(16);
  EXPECT_THAT(QuantizeTensor(bytes, Nf4Quantization{}),
              Fails(kInvalid, "tensor b: I8 elements"));
}

TEST(PackedWeightTest, AStoredScaleThatIsNotFiniteIsRefused) {
  const std::vector<float> values = Normal(128);
  for (const bool double_quant : {false, true}) {
    FT_ASSERT_OK_AND_ASSIGN(
        const PackedWeight packed,
        QuantizeTensor(ViewOf(values), {.double_quant = double_quant}));
    StoredNf4 stored = packed.AsStored(DType::kF32);
    const std::vector<float> bad(2, std::numeric_limits<float>::quiet_NaN());
    auto& scales = double_quant ? stored.super_scales : stored.scales;
    scales = std::as_bytes(std::span(bad)).first(scales.size());
    EXPECT_THAT(UnpackStored(stored), Fails(kInvalid, "not finite"));
  }
}

class QloraTest : public ::testing::Test {
 protected:
  static std::unique_ptr<Transformer> Load(
      const std::string& model, const std::optional<Nf4Quantization>& options) {
    auto loaded =
        Transformer::Load(OpenHfDirectory(GoldenPath(model)).value(), options);
    FT_CHECK(loaded.ok());
    FT_CHECK(loaded.value()->LoadAdapter(GoldenPath(kAdapter)).ok());
    return *std::move(loaded);
  }
  Supervised MicroBatch(int64_t micro) const {
    return PackRows(data_["input_ids"][0][micro],
                    data_["attention_mask"][0][micro],
                    data_["labels"][0][micro]);
  }
  static at::Tensor Loss(Transformer& model, const Supervised& batch) {
    return model.LossSum(model.Forward(batch.batch), batch.rows, batch.labels,
                         1.0 / static_cast<double>(batch.rows.size()));
  }

  static constexpr char kModel[] = "models/llama_untied";
  // What transformers stored of it.
  static constexpr char kStored[] = "quant/llama_untied_nf4";
  static constexpr char kAdapter[] = "training/llama_untied/lora/adapter_init";
  const GoldenTensors data_{"training/llama_untied/data.safetensors"};
  const GoldenTensors golden_{"quant/qlora.safetensors"};
};

TEST_F(QloraTest, LogitsLossAndGradientsEqualBitsandbytesAndPeft) {
  const auto model = Load(kStored, std::nullopt);
  EXPECT_EQ(model->quantization(), Nf4Quantization{.double_quant = true});
  const Supervised batch = MicroBatch(0);
  const at::Tensor hidden = model->Forward(batch.batch);
  std::vector<int64_t> rows(batch.batch.ids.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
  const int64_t first_row = batch.batch.cu_seqlens[1];
  EXPECT_LE((model->Logits(hidden, rows).narrow(0, 0, first_row) -
             golden_["logits"][0].narrow(0, 0, first_row))
                .abs()
                .max()
                .item<double>(),
            1e-4);

  const at::Tensor loss = Loss(*model, batch);
  const double wanted =
      GoldenJson("quant/expected.json")["qlora"]["bnb_linear4bit"]["loss"];
  EXPECT_NEAR(loss.item<double>(), wanted, 1e-5);
  loss.backward();
  size_t compared = 0;
  for (const NamedParameter& parameter : model->Trainables()) {
    const std::string name =
        "grad.base_model.model." + parameter.name + ".weight";
    EXPECT_LE(RelativeL2(parameter.tensor.grad(), golden_[name]), 1e-4) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 28u);
}

TEST_F(QloraTest, StoredWeightsExpandToThoseOfBitsandbytesToTheBit) {
  const HfDirectory files = OpenHfDirectory(GoldenPath(kStored)).value();
  size_t compared = 0;
  for (const TensorView& view : golden_.file().tensors()) {
    if (!view.name.starts_with("weight.")) continue;
    const std::string name = view.name.substr(7) + ".weight";
    FT_ASSERT_OK_AND_ASSIGN(const StoredNf4 stored,
                            ReadStoredNf4(files.weights, name, view.shape));
    FT_ASSERT_OK_AND_ASSIGN(const PackedWeight packed, UnpackStored(stored));
    EXPECT_TRUE(SameBits(Expanded(packed), golden_[view.name])) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 7u);
}

// A scale that lies between two entries of the map: bitsandbytes takes either.
TEST_F(QloraTest, QuantisingHereGivesTheirCodesAndOfScalesANeighbourAtMost) {
  const HfDirectory floats = OpenHfDirectory(GoldenPath(kModel)).value();
  const HfDirectory files = OpenHfDirectory(GoldenPath(kStored)).value();
  size_t scales = 0, apart = 0;
  for (const LinearSpec& linear : floats.spec.Linears()) {
    const std::string name = linear.module + ".weight";
    FT_ASSERT_OK_AND_ASSIGN(
        const PackedWeight packed,
        QuantizeTensor(*floats.weights.Get(name).value(), Nf4Quantization{}));
    const auto theirs = [&](const std::string& suffix) {
      return BytesOf(*files.weights.Get(name + suffix).value());
    };
    EXPECT_EQ(BytesOf(packed.codes_u8), theirs("")) << name;
    const std::vector<uint8_t> got = BytesOf(packed.scales);
    const std::vector<uint8_t> want = theirs(".absmax");
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_LE(std::abs(got[i] - want[i]), 1) << name;
      apart += got[i] != want[i];
    }
    scales += got.size();
  }
  EXPECT_LE(apart, scales / 100);
}

// Both sides multiply the same fp32 weights in the same order.
TEST_F(QloraTest, APackedModelComputesWhatItsExpandedWeightsDo) {
  for (const Nf4Quantization& options : {kSingle, Nf4Quantization{}}) {
    const TestDir dir;
    ExpandedCopy(GoldenPath(kModel), options, dir.path());
    const auto packed = Load(kModel, options);
    const auto expanded =
        Transformer::Load(OpenHfDirectory(dir.path()).value()).value();
    FT_ASSERT_OK(expanded->LoadAdapter(GoldenPath(kAdapter)));
    EXPECT_EQ(expanded->quantization(), std::nullopt);

    // Two batches under way at once: each expands into the same memory.
    const auto gradients = [&](Transformer& model) {
      const at::Tensor a = Loss(model, MicroBatch(0));
      const at::Tensor b = Loss(model, MicroBatch(1));
      a.backward();
      b.backward();
      return std::pair{a.item<float>(), b.item<float>()};
    };
    EXPECT_EQ(gradients(*packed), gradients(*expanded));
    const auto got = packed->Trainables(), want = expanded->Trainables();
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_TRUE(SameBits(got[i].tensor.grad(), want[i].tensor.grad()))
          << got[i].name;
    }
    const std::vector<int64_t> prompt = {5, 9, 100, 7};
    EXPECT_EQ(Generate(*packed, prompt, {.max_new_tokens = 24}),
              Generate(*expanded, prompt, {.max_new_tokens = 24}));
  }
}

TEST_F(QloraTest, BiasesAreAddedToPackedLinears) {
  const TestDir dir;
  const std::string path = GoldenPath("models/llama_tied");
  ExpandedCopy(path, Nf4Quantization{}, dir.path());
  const auto packed =
      Transformer::Load(OpenHfDirectory(path).value(), Nf4Quantization{})
          .value();
  const auto expanded =
      Transformer::Load(OpenHfDirectory(dir.path()).value()).value();
  const std::vector<int64_t> ids = {3, 1, 4, 1, 5, 9, 2, 6};
  const PackedBatch batch = PackedBatch::Of({ids});
  EXPECT_TRUE(SameBits(packed->Forward(batch), expanded->Forward(batch)));
}

TEST_F(QloraTest, AModelStoredIn4BitsIsTheOneQuantisedOnLoading) {
  for (const Nf4Quantization& options : {kSingle, Nf4Quantization{}}) {
    const TestDir dir;
    const std::string stored = dir / "stored";
    FT_ASSERT_OK(
        QuantizeModel(GoldenPath("models/tiny_chat"), stored, options));
    const auto loaded = Transformer::Load(
        OpenHfDirectory(GoldenPath("models/tiny_chat")).value(), options);
    FT_ASSERT_OK(loaded.status());
    FT_ASSERT_OK_AND_ASSIGN(HfDirectory files, OpenHfDirectory(stored));
    EXPECT_EQ(files.spec.quantization, options);
    // Whatever else is asked for.
    const auto read = Transformer::Load(std::move(files), Nf4Quantization{});
    FT_ASSERT_OK(read.status());
    EXPECT_EQ((*read)->quantization(), options);
    const PackedBatch batch = PackedBatch::Of({{3, 1, 4, 1, 5, 9, 2, 6}});
    EXPECT_TRUE(SameBits((*read)->Forward(batch), (*loaded)->Forward(batch)));
    EXPECT_TRUE(Exists(JoinPath(stored, "tokenizer.json")));

    EXPECT_THAT(QuantizeModel(stored, dir / "again", options),
                Fails(kInvalid, "is stored in 4 bits already"));
    EXPECT_THAT(QuantizeModel(GoldenPath("models/tiny_chat"), stored, options),
                Fails(absl::StatusCode::kAlreadyExists, "is already there"));
  }
}

TEST_F(QloraTest, AStoredModelWithoutItsConfigSaysWhatIsMissing) {
  const TestDir dir;
  const std::string stored = dir / "stored";
  FT_ASSERT_OK(
      QuantizeModel(GoldenPath("models/tiny_chat"), stored, Nf4Quantization{}));
  FT_ASSERT_OK(WriteFileAtomic(
      JoinPath(stored, "config.json"),
      ReadFile(GoldenPath("models/tiny_chat/config.json"), 1 << 20).value()));
  EXPECT_THAT(OpenHfDirectory(stored),
              Fails(kInvalid, "config.json has no quantization_config"));
}

}  // namespace
}  // namespace ft
