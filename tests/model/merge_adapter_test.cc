// SPDX-License-Identifier: Apache-2.0
//
// A merged model computes what base and adapter did, whether the base was of
// floats, quantised on loading, or stored in 4 bits.

#include "model/merge_adapter.h"

#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <limits>

#include "common/file.h"
#include "formats/peft_adapter.h"
#include "model/quantize_model.h"
#include "tests/model/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::Fails;
using testing::GoldenPath;
using testing::TestDir;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr Nf4Quantization kDouble{.double_quant = true};
constexpr Nf4Quantization kSingle{.double_quant = false};

class MergeTest : public ::testing::Test {
 protected:
  // An adapter of the model's name whose file says `base`.
  std::string Adapter(const std::optional<Nf4Quantization>& base) {
    const std::string from = GoldenPath(kAdapter);
    const std::string to = dir_ / "adapter";
    std::filesystem::remove_all(to);
    std::filesystem::copy(from, to);
    const SafetensorsFile file =
        SafetensorsFile::Open(JoinPath(from, kAdapterWeightsName)).value();
    std::vector<TensorBytes> tensors;
    for (const TensorView& view : file.tensors()) {
      tensors.push_back({view, view.bytes});
    }
    FT_CHECK(WriteSafetensors(JoinPath(to, kAdapterWeightsName), tensors,
                              AdapterMetadata(base))
                 .ok());
    return to;
  }
  at::Tensor Logits(const std::string& model, const std::string& adapter,
                    const std::optional<Nf4Quantization>& quantize) {
    c10::NoGradGuard no_grad;
    const auto loaded =
        Transformer::Load(OpenHfDirectory(model).value(), quantize).value();
    if (!adapter.empty()) FT_CHECK(loaded->LoadAdapter(adapter).ok());
    std::vector<int64_t> ids, rows;
    for (int64_t i = 0; i < 32; ++i) {
      ids.push_back(i * 37 % 256);
      rows.push_back(i);
    }
    return loaded->Logits(loaded->Forward(PackedBatch::Of({ids})), rows);
  }
  static double Farthest(const at::Tensor& a, const at::Tensor& b) {
    return (a - b).abs().max().item<double>();
  }

  static constexpr char kAdapter[] = "training/llama_untied/lora/adapter_init";
  const TestDir dir_;
  const std::string model_ = GoldenPath("models/llama_untied");
  const std::string merged_ = dir_ / "merged";
};

TEST_F(MergeTest, AMergedModelHasTheLogitsOfBaseAndAdapter) {
  const std::string adapter = Adapter(std::nullopt);
  FT_ASSERT_OK_AND_ASSIGN(
      const MergeReport report,
      MergeAdapter(model_, adapter, merged_, {.dtype = DType::kF32}));
  const at::Tensor merged = Logits(merged_, "", std::nullopt);
  EXPECT_LE(Farthest(merged, Logits(model_, adapter, std::nullopt)), 1e-4);
  EXPECT_GT(Farthest(merged, Logits(model_, "", std::nullopt)), 0.1);
  EXPECT_EQ(report.base, std::nullopt);
  ASSERT_EQ(report.layers.size(), 2u);
  for (const LayerMerge& layer : report.layers) EXPECT_LE(layer.error, 1e-5);
}

TEST_F(MergeTest, AnAdapterOfAQuantisedBaseIsAddedToWhatItWasTrainedOn) {
  for (const Nf4Quantization& base : {kDouble, kSingle}) {
    const std::string adapter = Adapter(base);
    const std::string out = merged_ + (base.double_quant ? "2" : "1");
    FT_ASSERT_OK_AND_ASSIGN(
        const MergeReport report,
        MergeAdapter(model_, adapter, out, {.dtype = DType::kF32}));
    EXPECT_EQ(report.base, base);
    const at::Tensor merged = Logits(out, "", std::nullopt);
    EXPECT_LE(Farthest(merged, Logits(model_, adapter, base)), 1e-4);
    EXPECT_GT(Farthest(merged, Logits(model_, adapter, std::nullopt)), 0.01);

    // The same from the base as it is stored in 4 bits, and from an adapter
    // that says nothing.
    const std::string stored = dir_ / "stored";
    std::filesystem::remove_all(stored);
    // No tokenizer is there to be copied.
    FT_ASSERT_OK(QuantizeModel(model_, stored, base));
    std::filesystem::remove_all(merged_);
    FT_ASSERT_OK(
        MergeAdapter(stored, adapter, merged_, {.dtype = DType::kF32}));
    EXPECT_EQ(Farthest(Logits(merged_, "", std::nullopt), merged), 0);
    std::filesystem::remove_all(merged_);
    FT_ASSERT_OK(MergeAdapter(
        model_, Adapter(std::nullopt), merged_,
        {.dtype = DType::kF32, .overrides_base = true, .base = base}));
    EXPECT_EQ(Farthest(Logits(merged_, "", std::nullopt), merged), 0);
  }
}

TEST_F(MergeTest, AnotherBaseThanTheAdaptersIsWarnedOf) {
  const std::string adapter = Adapter(kDouble);
  FT_ASSERT_OK_AND_ASSIGN(
      const MergeReport report,
      MergeAdapter(model_, adapter, merged_,
                   {.dtype = DType::kF32, .overrides_base = true}));
  ASSERT_EQ(report.warnings.size(), 1u);
  EXPECT_THAT(report.warnings[0], ::testing::HasSubstr("in another way"));
  EXPECT_LE(Farthest(Logits(merged_, "", std::nullopt),
                     Logits(model_, adapter, std::nullopt)),
            1e-4);

  FT_ASSERT_OK(QuantizeModel(model_, dir_ / "stored", kDouble));
  EXPECT_THAT(MergeAdapter(dir_ / "stored", adapter, dir_ / "x",
                           {.overrides_base = true}),
              Fails(kInvalid, "name the directory of the original"));
}

TEST_F(MergeTest, WeightsAreRoundedOnceToTheTypeOfTheFiles) {
  const std::string adapter = Adapter(std::nullopt);
  FT_ASSERT_OK(MergeAdapter(model_, adapter, merged_, {.dtype = DType::kF32}));
  FT_ASSERT_OK_AND_ASSIGN(
      const MergeReport report,
      MergeAdapter(model_, adapter, dir_ / "bf16", {.dtype = DType::kBF16}));
  const HfDirectory exact = OpenHfDirectory(merged_).value();
  const HfDirectory rounded = OpenHfDirectory(dir_ / "bf16").value();
  for (const TensorView* view : exact.weights.tensors()) {
    const TensorView* half = rounded.weights.Get(view->name).value();
    EXPECT_EQ(half->dtype, DType::kBF16);
    for (int64_t i = 0; i < view->numel(); ++i) {
      float value;
      uint16_t bits;
      std::memcpy(&value, view->bytes.data() + 4 * i, 4);
      std::memcpy(&bits, half->bytes.data() + 2 * i, 2);
      ASSERT_EQ(bits, FloatToBfloat16(value)) << view->name << " " << i;
    }
  }
  ASSERT_EQ(report.layers.size(), 2u);
  for (const LayerMerge& layer : report.layers) {
    EXPECT_GT(layer.error, 1e-4);
    EXPECT_LT(layer.error, 0.1);
  }
  EXPECT_EQ(rounded.spec.dtype, DType::kBF16);
}

TEST_F(MergeTest, TheFolderIsAWholeModelWithTiedWeightsOnceInSeveralFiles) {
  const std::string model = GoldenPath("models/tiny_chat");
  // An adapter that changes one kind of linear.
  const ModelSpec spec = OpenHfDirectory(model)->spec;
  std::vector<TensorBytes> tensors;
  const std::vector<float> numbers(2 * 128, 0.01f);
  for (const LinearSpec& linear : spec.Linears()) {
    if (linear.kind != "down_proj") continue;
    for (const auto& [name, shape] :
         {std::pair{LoraAName(linear.module),
                    std::vector<int64_t>{2, linear.in_features}},
          std::pair{LoraBName(linear.module),
                    std::vector<int64_t>{linear.out_features, 2}}}) {
      const TensorInfo info{name, DType::kF32, shape};
      tensors.push_back(
          {info, std::as_bytes(std::span(numbers))
                     .first(static_cast<size_t>(info.size_bytes()))});
    }
  }
  const std::string adapter = dir_ / "adapter";
  FT_ASSERT_OK(MakeDirs(adapter));
  FT_ASSERT_OK(
      WriteSafetensors(JoinPath(adapter, kAdapterWeightsName), tensors));
  FT_ASSERT_OK(WriteFileAtomic(
      JoinPath(adapter, kAdapterConfigName),
      AdapterConfigJson(
          {.lora_rank = 2, .lora_alpha = 4, .target_modules = {"down_proj"}})));

  FT_ASSERT_OK(QuantizeModel(model, dir_ / "stored", kDouble));
  FT_ASSERT_OK(MergeAdapter(dir_ / "stored", adapter, merged_,
                            {.max_shard_bytes = 100'000}));
  FT_ASSERT_OK_AND_ASSIGN(const HfDirectory merged, OpenHfDirectory(merged_));
  EXPECT_EQ(merged.spec.quantization, std::nullopt);
  EXPECT_EQ(merged.weights.Find("lm_head.weight"), nullptr);
  EXPECT_GT(merged.weights.file_names().size(), 1u);
  const std::vector<std::string> names = ListDir(merged_).value();
  const std::vector<std::string> wanted = ListDir(model).value();
  for (const std::string& name : wanted) {
    if (name == "model.safetensors") continue;
    EXPECT_THAT(names, ::testing::Contains(name));
  }
  EXPECT_LE(Farthest(Logits(merged_, "", std::nullopt),
                     Logits(dir_ / "stored", adapter, std::nullopt)),
            0.05);
}

TEST_F(MergeTest, WhatCannotBeMergedLeavesNothing) {
  const std::string adapter = Adapter(std::nullopt);
  EXPECT_THAT(
      MergeAdapter(GoldenPath("models/llama_tied"), adapter, merged_, {}),
      Fails(kInvalid, "the base model wants"));
  EXPECT_THAT(MergeAdapter(model_, dir_ / "none", merged_, {}),
              Fails(absl::StatusCode::kNotFound, "none"));

  // B of 1e38 times A is more than fp32 holds.
  const SafetensorsFile file =
      SafetensorsFile::Open(JoinPath(adapter, kAdapterWeightsName)).value();
  std::vector<std::vector<float>> alive;
  std::vector<TensorBytes> tensors;
  for (const TensorView& view : file.tensors()) {
    alive.emplace_back(static_cast<size_t>(view.numel()), 1e20f);
    tensors.push_back({view, std::as_bytes(std::span(alive.back()))});
  }
  const std::string large = dir_ / "large";
  std::filesystem::copy(adapter, large);
  FT_ASSERT_OK(WriteSafetensors(JoinPath(large, kAdapterWeightsName), tensors));
  EXPECT_THAT(MergeAdapter(model_, large, merged_, {}),
              Fails(kInvalid, "holds a value that is not finite"));
  EXPECT_FALSE(Exists(merged_));

  FT_ASSERT_OK(MakeDirs(merged_));
  EXPECT_THAT(MergeAdapter(model_, adapter, merged_, {}),
              Fails(absl::StatusCode::kAlreadyExists, "is already there"));
}

}  // namespace
}  // namespace ft
