// SPDX-License-Identifier: Apache-2.0

#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ft {
namespace {

// The dimension whose wavelength turns `rotations` times in `positions`.
double YarnDimension(double rotations, int64_t head_dim, double theta,
                     int64_t positions) {
  return static_cast<double>(head_dim) *
         std::log(static_cast<double>(positions) /
                  (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(theta));
}

void ScaleYarn(const RopeSpec& rope, int64_t head_dim,
               std::vector<double>& inverse) {
  const double low =
      std::max(std::floor(YarnDimension(rope.beta_fast, head_dim, rope.theta,
                                        rope.original_max_position)),
               0.0);
  double high =
      std::min(std::ceil(YarnDimension(rope.beta_slow, head_dim, rope.theta,
                                       rope.original_max_position)),
               static_cast<double>(head_dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < inverse.size(); ++i) {
    const double ramp =
        std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inverse[i] = inverse[i] / rope.factor * ramp + inverse[i] * (1 - ramp);
  }
}

void ScaleLlama3(const RopeSpec& rope, std::vector<double>& inverse) {
  const double original = static_cast<double>(rope.original_max_position);
  for (double& value : inverse) {
    const double wavelength = 2 * std::numbers::pi / value;
    if (wavelength < original / rope.high_freq_factor) continue;
    if (wavelength > original / rope.low_freq_factor) {
      value /= rope.factor;
      continue;
    }
    const double smooth = (original / wavelength - rope.low_freq_factor) /
                          (rope.high_freq_factor - rope.low_freq_factor);
    value = (1 - smooth) * value / rope.factor + smooth * value;
  }
}

}  // namespace

std::vector<double> RopeFrequencies(const RopeSpec& rope, int64_t head_dim,
                                    int64_t max_position, int64_t length) {
  const double d = static_cast<double>(head_dim);
  double theta = rope.theta;
  if (rope.kind == RopeKind::kDynamic && length > max_position) {
    theta *= std::pow(rope.factor * static_cast<double>(length) /
                              static_cast<double>(max_position) -
                          (rope.factor - 1),
                      d / (d - 2));
  }
  std::vector<double> inverse(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < inverse.size(); ++i) {
    inverse[i] = std::pow(theta, -2 * static_cast<double>(i) / d);
  }
  switch (rope.kind) {
    case RopeKind::kDefault:
    case RopeKind::kDynamic:
      break;
    case RopeKind::kLinear:
      for (double& value : inverse) value /= rope.factor;
      break;
    case RopeKind::kLlama3:
      ScaleLlama3(rope, inverse);
      break;
    case RopeKind::kYarn:
      ScaleYarn(rope, head_dim, inverse);
      break;
  }
  return inverse;
}

RopeTable::RopeTable(const RopeSpec& rope, int64_t head_dim,
                     int64_t max_position)
    : rope_(rope), head_dim_(head_dim), max_position_(max_position) {}

void RopeTable::Extend(int64_t length) {
  if (length <= length_) return;
  const std::vector<double> inverse =
      RopeFrequencies(rope_, head_dim_, max_position_, length);
  const size_t half = inverse.size();
  cos_.resize(static_cast<size_t>(length) * half);
  sin_.resize(static_cast<size_t>(length) * half);
  for (int64_t position = 0; position < length; ++position) {
    for (size_t i = 0; i < half; ++i) {
      // The product in fp32, as the reference rounds it.
      const float angle =
          static_cast<float>(position) * static_cast<float>(inverse[i]);
      const size_t at = static_cast<size_t>(position) * half + i;
      cos_[at] = static_cast<float>(std::cos(static_cast<double>(angle)) *
                                    rope_.attention_factor);
      sin_[at] = static_cast<float>(std::sin(static_cast<double>(angle)) *
                                    rope_.attention_factor);
    }
  }
  length_ = length;
}

}  // namespace ft
