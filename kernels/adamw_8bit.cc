// SPDX-License-Identifier: Apache-2.0

#include "kernels/adamw_8bit.h"

#include <algorithm>
#include <array>

#include "common/check.h"
#include "kernels/dynamic_code.h"

namespace ft {
namespace {

// The code of the unsigned map's least value above zero.
constexpr uint8_t kLeastPositive = 1;

}  // namespace

void AdamW8BitUpdate(const AdamWStep& step, std::span<float> parameters,
                     std::span<const float> gradients,
                     const Moments8Bit& moments) {
  const size_t n = parameters.size();
  const size_t blocks =
      static_cast<size_t>(DynamicBlocks(static_cast<int64_t>(n)));
  FT_CHECK(gradients.size() == n);
  FT_CHECK(moments.exp_avg.size() == n && moments.exp_avg_sq.size() == n);
  FT_CHECK(moments.exp_avg_absmax.size() == blocks &&
           moments.exp_avg_sq_absmax.size() == blocks);
  std::array<float, kDynamicBlock> exp_avg;
  std::array<float, kDynamicBlock> exp_avg_sq;
  for (size_t block = 0; block < blocks; ++block) {
    const size_t begin = block * kDynamicBlock;
    const size_t count = std::min<size_t>(kDynamicBlock, n - begin);
    const std::span<float> m(exp_avg.data(), count);
    const std::span<float> v(exp_avg_sq.data(), count);
    const auto m_codes = moments.exp_avg.subspan(begin, count);
    const auto v_codes = moments.exp_avg_sq.subspan(begin, count);
    const auto m_absmax = moments.exp_avg_absmax.subspan(block, 1);
    const auto v_absmax = moments.exp_avg_sq_absmax.subspan(block, 1);
    DynamicCode::Signed().Dequantize(m_codes, m_absmax, m);
    DynamicCode::Unsigned().Dequantize(v_codes, v_absmax, v);
    AdamWUpdate(step, parameters.subspan(begin, count),
                gradients.subspan(begin, count), m, v);
    DynamicCode::Signed().Quantize(m, m_codes, m_absmax);
    DynamicCode::Unsigned().Quantize(v, v_codes, v_absmax);
    for (size_t i = 0; i < count; ++i) {
      if (v[i] > 0) v_codes[i] = std::max(v_codes[i], kLeastPositive);
    }
  }
}

}  // namespace ft
