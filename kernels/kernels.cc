// SPDX-License-Identifier: Apache-2.0
//
// Choice of the table, and the contracts' public names over it.

#include <atomic>
#include <cmath>

#include "common/check.h"
#include "kernels/adamw.h"
#include "kernels/cpu_kernels.h"
#include "kernels/cross_entropy.h"
#include "kernels/global_norm.h"
#include "kernels/isa.h"
#include "kernels/low_rank.h"
#include "kernels/nf4.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"

namespace ft {
namespace {

std::atomic<Isa>& ActiveIsa() {
  static std::atomic<Isa> isa{BestIsa()};
  return isa;
}

}  // namespace

Isa BestIsa() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return Isa::kAvx512;
  }
  if (__builtin_cpu_supports("avx2")) return Isa::kAvx2;
#endif
  return Isa::kPortable;
}

absl::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "baseline";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "";
}

void SetKernelIsa(Isa isa) {
  ActiveIsa() =
      static_cast<int>(isa) < static_cast<int>(BestIsa()) ? isa : BestIsa();
}

Isa KernelIsa() { return ActiveIsa(); }

namespace internal {

const CpuKernels& ActiveKernels() {
#if defined(__x86_64__)
  switch (KernelIsa()) {
    case Isa::kAvx512:
      return kAvx512Kernels;
    case Isa::kAvx2:
      return kAvx2Kernels;
    case Isa::kPortable:
      break;
  }
#endif
  return kPortableKernels;
}

}  // namespace internal

void AdamWUpdate(const AdamWStep& step, std::span<float> parameters,
                 std::span<const float> gradients, std::span<float> exp_avg,
                 std::span<float> exp_avg_sq) {
  FT_CHECK(parameters.size() == gradients.size());
  FT_CHECK(parameters.size() == exp_avg.size());
  FT_CHECK(parameters.size() == exp_avg_sq.size());
  FT_CHECK(step.step >= 1);
  const double t = static_cast<double>(step.step);
  const internal::AdamWConstants constants = {
      .decay_factor =
          static_cast<float>(1.0 - step.learning_rate * step.weight_decay),
      .beta1 = static_cast<float>(step.beta1),
      .one_minus_beta1 = static_cast<float>(1.0 - step.beta1),
      .beta2 = static_cast<float>(step.beta2),
      .one_minus_beta2 = static_cast<float>(1.0 - step.beta2),
      .step_size = static_cast<float>(step.learning_rate /
                                      (1.0 - std::pow(step.beta1, t))),
      .inv_sqrt_correction2 =
          static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(step.beta2, t))),
      .eps = static_cast<float>(step.eps),
      .gradient_scale = static_cast<float>(step.gradient_scale)};
  internal::ActiveKernels().adamw(
      constants, static_cast<int64_t>(parameters.size()), parameters.data(),
      gradients.data(), exp_avg.data(), exp_avg_sq.data());
}

void RmsNormForward(std::span<const float> x, std::span<const float> weight,
                    float eps, std::span<float> y, std::span<float> rstd) {
  FT_CHECK(x.size() == rstd.size() * weight.size() && y.size() == x.size());
  internal::ActiveKernels().rms_norm_forward(
      static_cast<int64_t>(rstd.size()), static_cast<int64_t>(weight.size()),
      x.data(), weight.data(), eps, y.data(), rstd.data());
}

void RmsNormBackward(std::span<const float> dy, std::span<const float> x,
                     std::span<const float> weight, std::span<const float> rstd,
                     std::span<float> dx) {
  FT_CHECK(x.size() == rstd.size() * weight.size() && dy.size() == x.size() &&
           dx.size() == x.size());
  internal::ActiveKernels().rms_norm_backward(
      static_cast<int64_t>(rstd.size()), static_cast<int64_t>(weight.size()),
      dy.data(), x.data(), weight.data(), rstd.data(), dx.data());
}

void RopeInPlace(float* x, int64_t tokens, int64_t heads, int64_t head_dim,
                 int64_t rotary_dim, int64_t row_stride,
                 std::span<const int32_t> positions, const float* cos,
                 const float* sin, RopeDirection direction) {
  FT_CHECK(static_cast<int64_t>(positions.size()) == tokens);
  FT_CHECK(rotary_dim % 2 == 0 && rotary_dim <= head_dim);
  internal::ActiveKernels().rope(
      x, tokens, heads, head_dim, rotary_dim, row_stride, positions.data(), cos,
      sin, direction == RopeDirection::kForward ? 1.0f : -1.0f);
}

void SwigluForward(std::span<const float> gate, std::span<const float> up,
                   std::span<float> out) {
  FT_CHECK(gate.size() == up.size() && gate.size() == out.size());
  internal::ActiveKernels().swiglu_forward(static_cast<int64_t>(gate.size()),
                                           gate.data(), up.data(), out.data());
}

void SwigluBackwardInPlace(std::span<const float> dout, std::span<float> gate,
                           std::span<float> up, std::span<float> out) {
  FT_CHECK(dout.size() == gate.size() && gate.size() == up.size() &&
           out.size() == gate.size());
  internal::ActiveKernels().swiglu_backward(static_cast<int64_t>(gate.size()),
                                            dout.data(), gate.data(), up.data(),
                                            out.data());
}

void LowRankDown(std::span<const float> x_TD, std::span<const float> p_DR,
                 int64_t rank, float scale, std::span<float> out_TR) {
  const auto tokens = static_cast<int64_t>(out_TR.size()) / rank;
  const auto width = static_cast<int64_t>(p_DR.size()) / rank;
  FT_CHECK(static_cast<int64_t>(x_TD.size()) == tokens * width);
  internal::ActiveKernels().low_rank_down(tokens, width, rank, x_TD.data(),
                                          p_DR.data(), scale, out_TR.data());
}

void CrossEntropyInPlace(std::span<float> logits, int64_t vocabulary,
                         std::span<const int64_t> labels, float scale,
                         std::span<double> nll) {
  FT_CHECK(logits.size() == labels.size() * static_cast<size_t>(vocabulary));
  FT_CHECK(nll.size() == labels.size());
  for (const int64_t label : labels) {
    FT_CHECK(label >= 0 && label < vocabulary);
  }
  internal::ActiveKernels().cross_entropy(static_cast<int64_t>(labels.size()),
                                          vocabulary, logits.data(),
                                          labels.data(), scale, nll.data());
}

void TileSquares(std::span<const float> values, std::span<double> tiles) {
  FT_CHECK(tiles.size() == (values.size() + kNormTile - 1) / kNormTile);
  internal::ActiveKernels().tile_squares(static_cast<int64_t>(values.size()),
                                         values.data(), tiles.data());
}

void Nf4Quantize(std::span<const float> weights, std::span<uint8_t> packed,
                 std::span<float> absmax) {
  const int64_t n = static_cast<int64_t>(weights.size());
  FT_CHECK(static_cast<int64_t>(packed.size()) == Nf4Bytes(n));
  FT_CHECK(static_cast<int64_t>(absmax.size()) == Nf4Blocks(n));
  internal::ActiveKernels().nf4_quantize(n, weights.data(), packed.data(),
                                         absmax.data());
}

void Nf4Dequantize(std::span<const uint8_t> packed,
                   std::span<const float> absmax, std::span<float> weights,
                   Nf4Values values) {
  const int64_t n = static_cast<int64_t>(weights.size());
  FT_CHECK(static_cast<int64_t>(packed.size()) == Nf4Bytes(n));
  FT_CHECK(static_cast<int64_t>(absmax.size()) == Nf4Blocks(n));
  internal::ActiveKernels().nf4_dequantize(n, packed.data(), absmax.data(),
                                           values.data(), weights.data());
}

double SumTiles(std::span<const double> tiles) {
  double sum = 0;
  for (const double tile : tiles) sum += tile;
  return sum;
}

double ClipFactor(double norm, double max_norm) {
  if (max_norm == 0) return 1;
  const double factor = max_norm / (norm + 1e-6);
  return factor < 1 ? factor : 1;
}

}  // namespace ft
