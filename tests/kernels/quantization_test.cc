// SPDX-License-Identifier: Apache-2.0
//
// NF4, its double quantisation and 8-bit codes: the bytes of bitsandbytes, and
// the same on every instruction set. A checkpoint or a base that we write is
// read by it, so a single other bit is a fault.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "formats/safetensors.h"
#include "kernels/adamw_8bit.h"
#include "kernels/dynamic_code.h"
#include "kernels/isa.h"
#include "kernels/nf4.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::testing::ElementsAre;
using ::testing::Pointwise;

template <typename T>
std::string Sha256Of(std::span<const T> values) {
  return Sha256Hex({reinterpret_cast<const char*>(values.data()),
                    values.size() * sizeof(T)});
}

class Goldens {
 public:
  explicit Goldens(absl::string_view name)
      : file_(SafetensorsFile::Open(
                  absl::StrCat(FT_TEST_SOURCE_DIR, "/tests/golden/", name))
                  .value()) {}

  const SafetensorsFile& file() const { return file_; }
  std::vector<float> Floats(const std::string& name) const {
    const TensorView* tensor = file_.Get(name).value();
    std::vector<float> values(static_cast<size_t>(tensor->numel()));
    EXPECT_TRUE(ToFloat(tensor->dtype, tensor->bytes, values).ok());
    return values;
  }
  std::vector<uint8_t> Bytes(const std::string& name) const {
    const TensorView* tensor = file_.Get(name).value();
    std::vector<uint8_t> bytes(tensor->bytes.size());
    std::memcpy(bytes.data(), tensor->bytes.data(), bytes.size());
    return bytes;
  }
  DynamicCode Code(const std::string& name) const {
    DynamicCode::Map map;
    const std::vector<float> values = Floats(name);
    std::copy(values.begin(), values.end(), map.begin());
    return DynamicCode(map);
  }

 private:
  SafetensorsFile file_;
};

struct Nf4 {
  std::vector<uint8_t> packed;
  std::vector<float> absmax;
  bool operator==(const Nf4&) const = default;
};
Nf4 Empty(size_t weights) {
  return {.packed = std::vector<uint8_t>(
              static_cast<size_t>(Nf4Bytes(static_cast<int64_t>(weights)))),
          .absmax = std::vector<float>(
              static_cast<size_t>(Nf4Blocks(static_cast<int64_t>(weights))))};
}
Nf4 Quantize(std::span<const float> weights) {
  Nf4 nf4 = Empty(weights.size());
  Nf4Quantize(weights, nf4.packed, nf4.absmax);
  return nf4;
}

// Runs `check` once an instruction set that this processor has.
void OnEveryIsa(const std::function<void()>& check) {
  const Isa best = BestIsa();
  for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (static_cast<int>(isa) > static_cast<int>(best)) continue;
    SCOPED_TRACE(std::string(IsaName(isa)));
    SetKernelIsa(isa);
    check();
  }
  SetKernelIsa(best);
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

class Nf4GoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(Nf4GoldenTest, PackedBytesScalesAndValuesAreThoseOfBitsandbytes) {
  const Goldens goldens("quant/nf4.safetensors");
  const std::string source = GetParam();
  const std::vector<float> weights = goldens.Floats(source);
  OnEveryIsa([&] {
    const Nf4 nf4 = Quantize(weights);
    EXPECT_EQ(nf4.packed, goldens.Bytes(source + ".nf4.packed"));
    EXPECT_TRUE(SameBits(nf4.absmax, goldens.Floats(source + ".nf4.absmax")));
    if (absl::EndsWith(source, "_bf16")) return;  // Values there are rounded.
    std::vector<float> values(weights.size());
    Nf4Dequantize(nf4.packed, nf4.absmax, values);
    EXPECT_TRUE(SameBits(values, goldens.Floats(source + ".nf4.dequantised")));
  });
}

TEST_P(Nf4GoldenTest, DoubleQuantisationToo) {
  const Goldens goldens("quant/nf4.safetensors");
  const std::string source = GetParam();
  const std::string key = source + ".nf4_dq";
  const DynamicCode code = goldens.Code("nested_code");
  const Nf4 nf4 = Quantize(goldens.Floats(source));
  EXPECT_EQ(nf4.packed, goldens.Bytes(key + ".packed"));

  std::vector<uint8_t> codes(nf4.absmax.size());
  std::vector<float> absmax(static_cast<size_t>(
      DynamicBlocks(static_cast<int64_t>(nf4.absmax.size()))));
  const float offset = code.QuantizeScales(nf4.absmax, codes, absmax);
  const float wanted = goldens.Floats(key + ".absmax_offset")[0];
  EXPECT_LE(std::abs(offset - wanted),
            std::nextafter(wanted, 1e9f) - wanted);  // 1 ulp.
  EXPECT_EQ(codes, goldens.Bytes(key + ".absmax_codes"));

  // From the bytes of a file, to the bit.
  std::vector<float> scales(codes.size());
  code.DequantizeScales(goldens.Bytes(key + ".absmax_codes"),
                        goldens.Floats(key + ".absmax_absmax"), wanted, scales);
  EXPECT_TRUE(SameBits(scales, goldens.Floats(key + ".absmax")));
  if (absl::EndsWith(source, "_bf16")) return;
  const std::vector<float> expected = goldens.Floats(key + ".dequantised");
  std::vector<float> values(expected.size());
  Nf4Dequantize(nf4.packed, scales, values);
  EXPECT_TRUE(SameBits(values, expected));
}

INSTANTIATE_TEST_SUITE_P(Sources, Nf4GoldenTest,
                         ::testing::Values("normal", "normal_bf16", "outliers",
                                           "outliers_bf16", "ragged",
                                           "ragged_bf16", "zeros", "zeros_bf16",
                                           "big", "big_bf16"),
                         [](const auto& tested) {
                           return std::string(tested.param);
                         });

// A sequence that anybody can make again.
TEST(Nf4Test, TheSequenceOfTheSpecification) {
  std::vector<float> x(32768);
  for (uint64_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(
        (static_cast<double>(i * 2654435761 % (uint64_t{1} << 32)) /
             4294967296.0 -
         0.5) *
        0.1);
  }
  const Nf4 nf4 = Quantize(x);
  EXPECT_EQ(absl::BytesToHexString(
                {reinterpret_cast<const char*>(nf4.packed.data()), 16}),
            "0a2e61c3f91d50b3e71c4f92e60b3e81");
  EXPECT_EQ(Sha256Of<uint8_t>(nf4.packed),
            "21186d0a0e596f5c2e6d447cb81ba16304d43ea942c17de83d96b3b6f602a750");
  EXPECT_THAT(std::vector(nf4.absmax.begin(), nf4.absmax.begin() + 3),
              ElementsAre(0.05000000074505806f, 0.04949751868844032f,
                          0.049689408391714096f));
  std::vector<uint8_t> codes(512);
  std::vector<float> absmax(2);
  const float offset =
      DynamicCode::Signed().QuantizeScales(nf4.absmax, codes, absmax);
  EXPECT_FLOAT_EQ(offset, 0.0495733805000782f);
  EXPECT_THAT(std::vector(codes.begin(), codes.begin() + 8),
              ElementsAre(232, 62, 197, 210, 49, 218, 13, 179));
  EXPECT_THAT(absmax,
              ElementsAre(0.0006257705390453339f, 0.0006296113133430481f));
  EXPECT_EQ(Sha256Of<uint8_t>(codes),
            "ced899c3d1846c888d2331858c28d81b05e60aaa5b7d6fbad083d6057d20a2f7");
}

// Sizes around a byte, the vector, the block.
TEST(Nf4Test, EveryInstructionSetEqualsThePlainTwin) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 0.05f);
  for (const size_t size : {1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 129, 1000}) {
    std::vector<float> weights(size);
    for (float& weight : weights) weight = normal(random);
    weights[size / 2] = 0;
    Nf4 twin = Empty(size);
    Nf4QuantizeReference(weights, twin.packed, twin.absmax);
    std::vector<float> expected(size);
    Nf4DequantizeReference(twin.packed, twin.absmax, expected);
    OnEveryIsa([&] {
      EXPECT_TRUE(Quantize(weights) == twin) << size;
      std::vector<float> values(size);
      Nf4Dequantize(twin.packed, twin.absmax, values);
      EXPECT_TRUE(SameBits(values, expected)) << size;
    });
  }
}

TEST(Nf4Test, CodesStandForTheValuesThatAFileHolds) {
  std::array<float, 16> file;
  for (size_t i = 0; i < file.size(); ++i) file[i] = 0.25f * i - 2.0f;
  std::vector<uint8_t> packed(50);
  for (size_t i = 0; i < packed.size(); ++i) packed[i] = i * 37 % 256;
  const std::vector<float> absmax = {0.5f, 3.0f};
  std::vector<float> expected(99);
  Nf4DequantizeReference(packed, absmax, expected, file);
  EXPECT_EQ(expected[64], file[packed[32] >> 4] * 3.0f);
  EXPECT_EQ(expected[1], file[packed[0] & 15] * 0.5f);
  OnEveryIsa([&] {
    std::vector<float> values(expected.size());
    Nf4Dequantize(packed, absmax, values, file);
    EXPECT_TRUE(SameBits(values, expected));
  });
}

TEST(Nf4Test, TiesGoToTheLowerCodeAndZeroIsCodeSeven) {
  // absmax 1, so that s is the weight itself.
  std::vector<float> weights = {1.0f, -0.8480963706970215f,
                                std::nextafter(-0.8480963706970215f, 1.0f),
                                0.8614784479141235f, 0.0f};
  OnEveryIsa([&] {
    EXPECT_THAT(Quantize(weights).packed, ElementsAre(0xf0, 0x1e, 0x77));
  });
}

// 1 / absmax is infinite there.
TEST(Nf4Test, TheLeastSubnormalsKeepTheirSigns) {
  const float least = std::numeric_limits<float>::denorm_min();
  const std::vector<float> weights = {least, 0.0f, -least, 0.0f};
  OnEveryIsa(
      [&] { EXPECT_THAT(Quantize(weights).packed, ElementsAre(0xf7, 0x07)); });
}

// A shard is cut on blocks; so its weights are those of the whole.
TEST(Nf4Test, APartDequantisesAlone) {
  const Goldens goldens("quant/nf4.safetensors");
  const std::vector<float> weights = goldens.Floats("big");
  const Nf4 whole = Quantize(weights);
  const size_t begin = 64 * 17;
  const Nf4 part = Quantize(std::span(weights).subspan(begin));
  EXPECT_TRUE(std::equal(part.packed.begin(), part.packed.end(),
                         whole.packed.begin() + begin / 2));
  EXPECT_TRUE(std::equal(part.absmax.begin(), part.absmax.end(),
                         whole.absmax.begin() + begin / 64));
}

// arXiv:2305.14314: what 4 bits cost on a normal distribution.
TEST(Nf4Test, TheErrorOverANormalDistributionIsAsPublished) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> weights(1 << 20);
  for (float& weight : weights) weight = normal(random);
  const Nf4 nf4 = Quantize(weights);
  std::vector<float> values(weights.size());
  Nf4Dequantize(nf4.packed, nf4.absmax, values);
  double sum = 0;
  double squares = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double error = std::abs(values[i] - weights[i]);
    sum += error;
    squares += error * error;
  }
  const double n = static_cast<double>(weights.size());
  EXPECT_NEAR(sum / n, 0.0728, 0.0005);
  EXPECT_NEAR(std::sqrt(squares / n), 0.0920, 0.0005);
}

TEST(DynamicCodeTest, TheMapsAreTheSpecifiedOnes) {
  EXPECT_EQ(Sha256Of<float>(DynamicCode::Signed().map()),
            "035c4114538df2a03bbcb4d8a39b9325d26d84a00cf6cf29018d1a6608ab14c4");
  EXPECT_EQ(Sha256Of<float>(DynamicCode::Unsigned().map()),
            "02a9b523750e21348029626da435f2adadb851b687d86349cd20752f9255de26");
  EXPECT_EQ(DynamicCode::Signed().map()[127], 0.0f);
  EXPECT_EQ(DynamicCode::Unsigned().map()[0], 0.0f);
  const Goldens goldens("quant/nf4.safetensors");
  EXPECT_THAT(DynamicCode::Signed().map(),
              Pointwise(::testing::FloatNear(6e-8f),
                        goldens.Floats("dynamic_map_signed")));
  EXPECT_THAT(DynamicCode::Unsigned().map(),
              Pointwise(::testing::FloatNear(6e-8f),
                        goldens.Floats("dynamic_map_unsigned")));
}

TEST(DynamicCodeTest, CodesAndValuesAreThoseOfBitsandbytes) {
  const Goldens goldens("quant/nf4.safetensors");
  const DynamicCode code = goldens.Code("dynamic_map_signed");
  const std::vector<float> values = goldens.Floats("big");
  std::vector<uint8_t> codes(values.size());
  std::vector<float> absmax(75);
  code.Quantize(values, codes, absmax);
  EXPECT_TRUE(SameBits(absmax, goldens.Floats("big.blockwise8.absmax")));
  // Its CPU form looks codes up in a table of 2^16, which may take a neighbour:
  // never a nearer one.
  const std::vector<uint8_t> theirs = goldens.Bytes("big.blockwise8.codes");
  size_t differ = 0;
  for (size_t i = 0; i < codes.size(); ++i) {
    if (codes[i] == theirs[i]) continue;
    ++differ;
    const double s = values[i] / absmax[i / 256];
    EXPECT_LT(std::abs(code.map()[codes[i]] - s),
              std::abs(code.map()[theirs[i]] - s));
  }
  EXPECT_LE(differ, codes.size() / 200);
  std::vector<float> back(values.size());
  code.Dequantize(theirs, absmax, back);
  EXPECT_TRUE(SameBits(back, goldens.Floats("big.blockwise8.dequantised")));
}

TEST(DynamicCodeTest, EveryEntryIsItsOwnCode) {
  for (const DynamicCode* code :
       {&DynamicCode::Signed(), &DynamicCode::Unsigned()}) {
    std::vector<uint8_t> codes(256);
    std::vector<float> absmax(1);
    code->Quantize(code->map(), codes, absmax);
    for (size_t i = 0; i < codes.size(); ++i) EXPECT_EQ(codes[i], i);
  }
}

// --- AdamW with 8-bit moments ------------------------------------------------

struct State8Bit {
  explicit State8Bit(size_t n)
      : exp_avg(n),
        exp_avg_sq(n),
        exp_avg_absmax(
            static_cast<size_t>(DynamicBlocks(static_cast<int64_t>(n)))),
        exp_avg_sq_absmax(exp_avg_absmax.size()) {}
  Moments8Bit View() {
    return {exp_avg, exp_avg_absmax, exp_avg_sq, exp_avg_sq_absmax};
  }
  std::vector<uint8_t> exp_avg;
  std::vector<uint8_t> exp_avg_sq;
  std::vector<float> exp_avg_absmax;
  std::vector<float> exp_avg_sq_absmax;
};

double Farthest(std::span<const float> a, std::span<const float> b) {
  double farthest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    farthest = std::max(farthest, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return farthest;
}

// What 8 bits cost over ten steps is what they cost bitsandbytes, whose CPU
// form looks codes up in a table of 2^16 and so takes other codes near zero.
TEST(AdamW8BitTest, TenStepsLeaveFp32NoFartherThanBitsandbytes) {
  const Goldens goldens("optimizers/unit.safetensors");
  std::vector<float> parameters = goldens.Floats("W.init");
  const std::vector<float> gradients = goldens.Floats("W.grad");
  const size_t n = parameters.size();
  State8Bit state(n);
  AdamWStep step{.learning_rate = 0.01, .weight_decay = 0.01};
  for (step.step = 1; step.step <= 10; ++step.step) {
    AdamW8BitUpdate(step, parameters,
                    std::span(gradients).subspan(
                        (static_cast<size_t>(step.step) - 1) * n, n),
                    state.View());
    if (step.step != 1 && step.step != 2 && step.step != 10) continue;
    const std::vector<float> fp32 =
        goldens.Floats(absl::StrCat("adamw.W.after", step.step));
    const std::vector<float> theirs =
        goldens.Floats(absl::StrCat("adamw8bit.W.after", step.step));
    EXPECT_LE(Farthest(parameters, fp32), Farthest(theirs, fp32) + 1e-6)
        << "step " << step.step;
  }
  const std::vector<uint8_t> codes = goldens.Bytes("adamw8bit.W.state.state1");
  size_t far = 0;
  for (size_t i = 0; i < n; ++i) {
    far += std::abs(codes[i] - state.exp_avg[i]) > 1;
  }
  EXPECT_LE(far, n / 50);
}

// A gradient of 1 in a block of much larger ones, and then one of a millionth.
TEST(AdamW8BitTest, ASmallGradientAfterALargerOneIsNoLeap) {
  std::vector<float> parameters(256);
  std::vector<float> gradients(256, 10'000.0f);
  State8Bit state(256);
  AdamWStep step{.learning_rate = 0.01, .step = 1};
  gradients[7] = 1.0f;
  AdamW8BitUpdate(step, parameters, gradients, state.View());
  gradients[7] = 1e-6f;
  step.step = 2;
  const float before = parameters[7];
  AdamW8BitUpdate(step, parameters, gradients, state.View());
  EXPECT_LE(std::abs(parameters[7] - before), 0.01f);
}

TEST(AdamW8BitTest, AShardCutOnBlocksStepsAsTheWhole) {
  const Goldens goldens("optimizers/unit.safetensors");
  const std::vector<float> gradients = goldens.Floats("W.grad");
  std::vector<float> whole = goldens.Floats("W.init");
  std::vector<float> cut = whole;
  const size_t n = whole.size();
  const size_t begin = 256 * 7;
  State8Bit whole_state(n);
  State8Bit first(begin);
  State8Bit second(n - begin);
  AdamWStep step{.learning_rate = 0.01, .weight_decay = 0.01};
  for (step.step = 1; step.step <= 5; ++step.step) {
    const std::span<const float> g = std::span(gradients).subspan(
        (static_cast<size_t>(step.step) - 1) * n, n);
    AdamW8BitUpdate(step, whole, g, whole_state.View());
    AdamW8BitUpdate(step, std::span(cut).first(begin), g.first(begin),
                    first.View());
    AdamW8BitUpdate(step, std::span(cut).subspan(begin), g.subspan(begin),
                    second.View());
  }
  EXPECT_TRUE(SameBits(whole, cut));
}

// Least squares over 1,000 steps: 8 bits end within 1 % of fp32.
TEST(AdamW8BitTest, ARegressionEndsWhereFp32Does) {
  constexpr size_t kFeatures = 4096;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> target(kFeatures);
  for (float& t : target) t = normal(random);
  const auto noisy_gradient = [&](std::span<const float> p, uint32_t seed) {
    std::mt19937 noise(seed);
    std::vector<float> g(kFeatures);
    for (size_t i = 0; i < kFeatures; ++i) {
      g[i] = 2 * (p[i] - target[i]) + 0.5f * normal(noise);
    }
    return g;
  };
  const auto loss = [&](std::span<const float> p) {
    double sum = 1;  // What no step can take away.
    for (size_t i = 0; i < kFeatures; ++i) {
      sum += std::pow(p[i] - target[i], 2) / kFeatures;
    }
    return sum;
  };
  std::vector<float> p8(kFeatures);
  std::vector<float> p32(kFeatures);
  std::vector<float> m(kFeatures);
  std::vector<float> v(kFeatures);
  State8Bit state(kFeatures);
  AdamWStep step{.learning_rate = 0.01};
  for (step.step = 1; step.step <= 1000; ++step.step) {
    const uint32_t seed = static_cast<uint32_t>(step.step);
    AdamW8BitUpdate(step, p8, noisy_gradient(p8, seed), state.View());
    AdamWUpdate(step, p32, noisy_gradient(p32, seed), m, v);
  }
  EXPECT_LT(loss(p32), 1.01);
  EXPECT_NEAR(loss(p8), loss(p32), 0.01 * loss(p32));
}

}  // namespace
}  // namespace ft
