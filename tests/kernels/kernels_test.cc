// SPDX-License-Identifier: Apache-2.0
//
// Every fast form equals its plain twin within the stated bound, and gives the
// same bits on every instruction set this processor has.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "kernels/adamw.h"
#include "kernels/cross_entropy.h"
#include "kernels/global_norm.h"
#include "kernels/isa.h"
#include "kernels/low_rank.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"

namespace ft {
namespace {

std::vector<float> Random(size_t size, float scale, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

void ExpectClose(const std::vector<float>& got, const std::vector<float>& want,
                 double relative, double absolute) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], relative * std::abs(want[i]) + absolute)
        << "element " << i;
  }
}

// Runs `run` on every instruction set and demands the same bits.
template <typename Result>
Result OnEveryIsa(const std::function<Result()>& run) {
  const Isa best = BestIsa();
  SetKernelIsa(Isa::kPortable);
  const Result portable = run();
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (static_cast<int>(isa) > static_cast<int>(best)) continue;
    SetKernelIsa(isa);
    EXPECT_TRUE(run() == portable) << IsaName(isa);
  }
  SetKernelIsa(best);
  return portable;
}

// Sizes around the 16 lanes, the 512 block and the 1,024 tile.
const std::vector<size_t> kSizes = {1,   2,   15,   16,   17,   31,  64,
                                    511, 513, 1023, 1024, 1025, 4099};

TEST(AdamWTest, EqualsTheFormulaOverTenSteps) {
  for (const size_t size : kSizes) {
    const std::vector<float> start = Random(size, 1, 1);
    const auto run = [&](auto update) {
      std::vector<float> p = start;
      std::vector<float> m(size), v(size);
      for (int64_t step = 1; step <= 10; ++step) {
        const std::vector<float> g = Random(size, 0.1f, 100 + step);
        update(AdamWStep{.learning_rate = 0.01,
                         .weight_decay = 0.01,
                         .step = step,
                         .gradient_scale = 0.5},
               p, g, m, v);
      }
      p.insert(p.end(), m.begin(), m.end());
      p.insert(p.end(), v.begin(), v.end());
      return p;
    };
    const std::vector<float> fast = OnEveryIsa<std::vector<float>>(
        [&] { return run([](auto&&... args) { AdamWUpdate(args...); }); });
    ExpectClose(fast,
                run([](auto&&... args) { AdamWUpdateReference(args...); }),
                1e-5, 1e-6);
  }
}

TEST(AdamWTest, AShardsUpdateIsTheSamePartOfTheWholes) {
  const std::vector<float> g = Random(4096, 1, 2);
  std::vector<float> whole = Random(4096, 1, 3), cut = whole;
  std::vector<float> m(4096), v(4096), m2(4096), v2(4096);
  const AdamWStep step{.learning_rate = 0.1, .step = 3};
  AdamWUpdate(step, whole, g, m, v);
  for (size_t begin = 0; begin < 4096; begin += 1024) {
    AdamWUpdate(step, std::span(cut).subspan(begin, 1024),
                std::span(g).subspan(begin, 1024),
                std::span(m2).subspan(begin, 1024),
                std::span(v2).subspan(begin, 1024));
  }
  EXPECT_EQ(whole, cut);
}

TEST(RmsNormTest, ForwardAndBackwardEqualTheFormula) {
  for (const size_t dim : kSizes) {
    const size_t rows = 3;
    const std::vector<float> x = Random(rows * dim, 2, 4);
    const std::vector<float> w = Random(dim, 1, 5);
    const std::vector<float> dy = Random(rows * dim, 1, 6);
    const auto run = [&](auto forward, auto backward) {
      std::vector<float> y(rows * dim), rstd(rows), dx(rows * dim);
      forward(x, w, 1e-5f, y, rstd);
      backward(dy, x, w, rstd, dx);
      y.insert(y.end(), dx.begin(), dx.end());
      return y;
    };
    const std::vector<float> fast = OnEveryIsa<std::vector<float>>([&] {
      return run([](auto&&... a) { RmsNormForward(a...); },
                 [](auto&&... a) { RmsNormBackward(a...); });
    });
    ExpectClose(fast,
                run([](auto&&... a) { RmsNormForwardReference(a...); },
                    [](auto&&... a) { RmsNormBackwardReference(a...); }),
                1e-5, 2e-6);
  }
}

TEST(RopeTest, BackwardUndoesForwardAndBothEqualTheFormula) {
  constexpr int64_t kTokens = 7, kHeads = 3, kDim = 20, kRotary = 16;
  std::vector<float> cos(10 * kRotary / 2), sin(10 * kRotary / 2);
  for (size_t i = 0; i < cos.size(); ++i) {
    cos[i] = std::cos(0.37f * static_cast<float>(i));
    sin[i] = std::sin(0.37f * static_cast<float>(i));
  }
  const std::vector<int32_t> positions = {0, 1, 2, 0, 1, 9, 3};
  const std::vector<float> x = Random(kTokens * kHeads * kDim, 1, 7);
  const auto turn = [&](auto rope, std::vector<float> values,
                        RopeDirection direction) {
    rope(values.data(), kTokens, kHeads, kDim, kRotary, kHeads * kDim,
         std::span<const int32_t>(positions), cos.data(), sin.data(),
         direction);
    return values;
  };
  const auto fast = [](auto&&... a) { RopeInPlace(a...); };
  const std::vector<float> turned = OnEveryIsa<std::vector<float>>(
      [&] { return turn(fast, x, RopeDirection::kForward); });
  ExpectClose(turned,
              turn([](auto&&... a) { RopeInPlaceReference(a...); }, x,
                   RopeDirection::kForward),
              1e-6, 1e-6);
  ExpectClose(turn(fast, turned, RopeDirection::kBackward), x, 1e-5, 1e-5);
  for (int64_t row = 0; row < kTokens * kHeads; ++row) {
    for (int64_t i = kRotary; i < kDim; ++i) {
      EXPECT_EQ(turned[row * kDim + i], x[row * kDim + i]);
    }
  }
}

TEST(SwigluTest, ForwardAndBackwardEqualTheFormulaAlsoFarOut) {
  std::vector<float> gate = Random(5000, 4, 8);
  gate[0] = 100;
  gate[1] = -100;
  gate[2] = 0;
  const std::vector<float> up = Random(5000, 1, 9), dout = Random(5000, 1, 10);
  const auto run = [&](auto forward, auto backward) {
    std::vector<float> out(5000), dgate = gate, dup = up, again(5000);
    forward(gate, up, out);
    backward(dout, dgate, dup, again);
    EXPECT_EQ(out, again);
    out.insert(out.end(), dgate.begin(), dgate.end());
    out.insert(out.end(), dup.begin(), dup.end());
    return out;
  };
  const std::vector<float> fast = OnEveryIsa<std::vector<float>>([&] {
    std::vector<float> out(5000), dgate = gate, dup = up, again(5000);
    SwigluForward(gate, up, out);
    SwigluBackwardInPlace(dout, dgate, dup, again);
    out.insert(out.end(), dgate.begin(), dgate.end());
    out.insert(out.end(), dup.begin(), dup.end());
    return out;
  });
  ExpectClose(fast,
              run([](auto&&... a) { SwigluForwardReference(a...); },
                  [](auto&&... a) { SwigluBackwardInPlaceReference(a...); }),
              1e-5, 1e-6);
}

// Ranks and token counts around the eight.
TEST(LowRankTest, TheProjectionEqualsTheFormula) {
  for (const int64_t rank : {1, 3, 8, 16, 17}) {
    for (const size_t tokens : {1, 7, 8, 9, 37}) {
      for (const size_t width : {1, 15, 576}) {
        const std::vector<float> x = Random(tokens * width, 1, 1);
        const std::vector<float> p = Random(width * rank, 1, 2);
        std::vector<float> want(tokens * rank);
        LowRankDownReference(x, p, rank, 0.5f, want);
        const auto fast = OnEveryIsa<std::vector<float>>([&] {
          std::vector<float> out(tokens * rank);
          LowRankDown(x, p, rank, 0.5f, out);
          return out;
        });
        ExpectClose(fast, want, 1e-5, 2e-5);
      }
    }
  }
}

TEST(LowRankTest, SomeTokensAreTheSameBitsAsAmongAll) {
  constexpr int64_t kRank = 8, kTokens = 29, kWidth = 40;
  const std::vector<float> x = Random(kTokens * kWidth, 1, 1);
  const std::vector<float> p = Random(kWidth * kRank, 1, 2);
  const auto in_two_parts = [&](int64_t cut) {
    std::vector<float> out(kTokens * kRank);
    LowRankDown(std::span(x).first(cut * kWidth), p, kRank, 1,
                std::span(out).first(cut * kRank));
    LowRankDown(std::span(x).subspan(cut * kWidth), p, kRank, 1,
                std::span(out).subspan(cut * kRank));
    return out;
  };
  EXPECT_EQ(in_two_parts(13), in_two_parts(kTokens));
}

TEST(CrossEntropyTest, LossAndGradientEqualTheFormula) {
  for (const int64_t vocabulary : {2, 17, 511, 1025, 49152}) {
    const std::vector<float> logits =
        Random(static_cast<size_t>(2 * vocabulary), 5, 11);
    const std::vector<int64_t> labels = {0, vocabulary - 1};
    std::vector<double> nll(2), want_nll(2);
    const std::vector<float> fast = OnEveryIsa<std::vector<float>>([&] {
      std::vector<float> z = logits;
      CrossEntropyInPlace(z, vocabulary, labels, 0.25f, nll);
      return z;
    });
    std::vector<float> want = logits;
    CrossEntropyInPlaceReference(want, vocabulary, labels, 0.25f, want_nll);
    ExpectClose(fast, want, 1e-5, 1e-8);
    EXPECT_NEAR(nll[0], want_nll[0], 1e-6 * want_nll[0] + 1e-7);
    EXPECT_NEAR(nll[1], want_nll[1], 1e-6 * want_nll[1] + 1e-7);
  }
}

TEST(CrossEntropyTest, NonFiniteLogitsGiveANonFiniteLoss) {
  for (const float bad : {INFINITY, NAN}) {
    for (const size_t at : {0, 3, 20, 63, 66}) {  // First, label, lanes, rest.
      OnEveryIsa<bool>([&] {
        std::vector<float> z = Random(67, 1, 12);
        z[at] = bad;
        std::vector<double> nll(1);
        CrossEntropyInPlace(z, 67, std::vector<int64_t>{3}, 1, nll);
        EXPECT_FALSE(std::isfinite(nll[0])) << bad << " at " << at;
        return true;
      });
    }
  }
}

TEST(GlobalNormTest, TilesEqualTheFormulaAndDoNotDependOnTheCut) {
  for (const size_t size : kSizes) {
    const std::vector<float> x = Random(size, 1, 13);
    const size_t count = (size + kNormTile - 1) / kNormTile;
    const auto tiles = OnEveryIsa<std::vector<double>>([&] {
      std::vector<double> sums(count);
      TileSquares(x, sums);
      return sums;
    });
    std::vector<double> want(count);
    TileSquaresReference(x, want);
    for (size_t i = 0; i < count; ++i) EXPECT_NEAR(tiles[i], want[i], 1e-9);
    std::vector<double> alone(1);
    if (size > kNormTile) {
      TileSquares(std::span(x).subspan(
                      kNormTile, std::min<size_t>(kNormTile, size - kNormTile)),
                  alone);
      EXPECT_EQ(alone[0], tiles[1]);
    }
  }
}

TEST(GlobalNormTest, ClippingOnlyEverShrinks) {
  EXPECT_EQ(ClipFactor(0.5, 1), 1);
  EXPECT_NEAR(ClipFactor(4, 1), 0.25, 1e-6);
  EXPECT_EQ(ClipFactor(4, 0), 1);
}

}  // namespace
}  // namespace ft
