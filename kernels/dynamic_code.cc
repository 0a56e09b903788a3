// SPDX-License-Identifier: Apache-2.0

#include "kernels/dynamic_code.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/check.h"

namespace ft {
namespace {

// In long double, where numerator and denominator are exact, so that each value
// is rounded once.
DynamicCode::Map MakeMap(bool is_signed) {
  std::vector<float> values = {0.0f, 1.0f};
  for (int i = 0; i < 7; ++i) {
    const int k = 1 << (is_signed ? i : i + 1);
    for (int j = 0; j < k; ++j) {
      const long double numerator = 2.0L * k + 18.0L * j + 9.0L;
      const long double denominator = 20.0L * k * std::pow(10.0L, 6 - i);
      const float value = static_cast<float>(numerator / denominator);
      values.push_back(value);
      if (is_signed) values.push_back(-value);
    }
  }
  DynamicCode::Map map;
  FT_CHECK(values.size() == map.size());
  std::sort(values.begin(), values.end());
  std::copy(values.begin(), values.end(), map.begin());
  return map;
}

void CheckSizes(size_t values, size_t codes, size_t absmax) {
  FT_CHECK(codes == values);
  FT_CHECK(static_cast<int64_t>(absmax) ==
           DynamicBlocks(static_cast<int64_t>(values)));
}

}  // namespace

const DynamicCode& DynamicCode::Signed() {
  static const DynamicCode code(MakeMap(/*is_signed=*/true));
  return code;
}

const DynamicCode& DynamicCode::Unsigned() {
  static const DynamicCode code(MakeMap(/*is_signed=*/false));
  return code;
}

DynamicCode::DynamicCode(const Map& map) : map_(map) {
  FT_CHECK(std::is_sorted(map.begin(), map.end()));
  for (size_t i = 0; i < midpoints_.size(); ++i) {
    midpoints_[i] = (static_cast<double>(map[i]) + map[i + 1]) / 2;
  }
}

void DynamicCode::Quantize(std::span<const float> values,
                           std::span<uint8_t> codes,
                           std::span<float> absmax) const {
  CheckSizes(values.size(), codes.size(), absmax.size());
  for (size_t block = 0; block < absmax.size(); ++block) {
    const size_t begin = block * kDynamicBlock;
    const size_t end = std::min(begin + kDynamicBlock, values.size());
    float highest = 0;
    for (size_t i = begin; i < end; ++i) {
      highest = std::max(highest, std::abs(values[i]));
    }
    absmax[block] = highest;
    if (highest == 0) {
      std::fill(codes.begin() + begin, codes.begin() + end, uint8_t{0});
      continue;
    }
    for (size_t i = begin; i < end; ++i) {
      const auto above = std::lower_bound(midpoints_.begin(), midpoints_.end(),
                                          values[i] / highest);
      codes[i] = static_cast<uint8_t>(above - midpoints_.begin());
    }
  }
}

void DynamicCode::Dequantize(std::span<const uint8_t> codes,
                             std::span<const float> absmax,
                             std::span<float> values) const {
  CheckSizes(values.size(), codes.size(), absmax.size());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = map_[codes[i]] * absmax[i / kDynamicBlock];
  }
}

float DynamicCode::QuantizeScales(std::span<const float> scales,
                                  std::span<uint8_t> codes,
                                  std::span<float> absmax) const {
  double sum = 0;
  for (const float scale : scales) sum += scale;
  const float offset =
      scales.empty()
          ? 0.0f
          : static_cast<float>(sum / static_cast<double>(scales.size()));
  std::vector<float> above(scales.begin(), scales.end());
  for (float& value : above) value -= offset;
  Quantize(above, codes, absmax);
  return offset;
}

void DynamicCode::DequantizeScales(std::span<const uint8_t> codes,
                                   std::span<const float> absmax, float offset,
                                   std::span<float> scales) const {
  Dequantize(codes, absmax, scales);
  for (float& scale : scales) scale += offset;
}

}  // namespace ft
