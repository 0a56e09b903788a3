// SPDX-License-Identifier: Apache-2.0
//
// The plain twins: each is its header's formula, in the order it is written
// there, in fp64 where that cannot hide a fault of the fast form.

#include <algorithm>
#include <cmath>

#include "kernels/adamw.h"
#include "kernels/cross_entropy.h"
#include "kernels/global_norm.h"
#include "kernels/low_rank.h"
#include "kernels/nf4.h"
#include "kernels/nf4_table.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"

namespace ft {

void AdamWUpdateReference(const AdamWStep& step, std::span<float> parameters,
                          std::span<const float> gradients,
                          std::span<float> exp_avg,
                          std::span<float> exp_avg_sq) {
  const double t = static_cast<double>(step.step);
  const double correction1 = 1 - std::pow(step.beta1, t);
  const double correction2 = 1 - std::pow(step.beta2, t);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const double g = gradients[i] * step.gradient_scale;
    const double m = step.beta1 * exp_avg[i] + (1 - step.beta1) * g;
    const double v = step.beta2 * exp_avg_sq[i] + (1 - step.beta2) * g * g;
    exp_avg[i] = static_cast<float>(m);
    exp_avg_sq[i] = static_cast<float>(v);
    parameters[i] = static_cast<float>(
        parameters[i] * (1 - step.learning_rate * step.weight_decay) -
        step.learning_rate / correction1 * m /
            (std::sqrt(v) / std::sqrt(correction2) + step.eps));
  }
}

void RmsNormForwardReference(std::span<const float> x,
                             std::span<const float> weight, float eps,
                             std::span<float> y, std::span<float> rstd) {
  const size_t dim = weight.size();
  for (size_t row = 0; row < rstd.size(); ++row) {
    double squares = 0;
    for (size_t i = 0; i < dim; ++i) {
      squares += static_cast<double>(x[row * dim + i]) * x[row * dim + i];
    }
    const double r = 1 / std::sqrt(squares / static_cast<double>(dim) + eps);
    rstd[row] = static_cast<float>(r);
    for (size_t i = 0; i < dim; ++i) {
      y[row * dim + i] = static_cast<float>(x[row * dim + i] * r * weight[i]);
    }
  }
}

void RmsNormBackwardReference(std::span<const float> dy,
                              std::span<const float> x,
                              std::span<const float> weight,
                              std::span<const float> rstd,
                              std::span<float> dx) {
  const size_t dim = weight.size();
  for (size_t row = 0; row < rstd.size(); ++row) {
    double dot = 0;
    for (size_t i = 0; i < dim; ++i) {
      const size_t at = row * dim + i;
      dot += static_cast<double>(weight[i]) * dy[at] * x[at];
    }
    const double r = rstd[row];
    for (size_t i = 0; i < dim; ++i) {
      const size_t at = row * dim + i;
      dx[at] = static_cast<float>(r * weight[i] * dy[at] -
                                  x[at] * r * r * r / static_cast<double>(dim) *
                                      dot);
    }
  }
}

void RopeInPlaceReference(float* x, int64_t tokens, int64_t heads,
                          int64_t head_dim, int64_t rotary_dim,
                          int64_t row_stride,
                          std::span<const int32_t> positions, const float* cos,
                          const float* sin, RopeDirection direction) {
  const int64_t half = rotary_dim / 2;
  for (int64_t token = 0; token < tokens; ++token) {
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t i = 0; i < half; ++i) {
        float& low = x[token * row_stride + head * head_dim + i];
        float& high = x[token * row_stride + head * head_dim + half + i];
        const double c = cos[positions[token] * half + i];
        double s = sin[positions[token] * half + i];
        if (direction == RopeDirection::kBackward) s = -s;
        const double a = low;
        const double b = high;
        low = static_cast<float>(a * c - b * s);
        high = static_cast<float>(b * c + a * s);
      }
    }
  }
}

void SwigluForwardReference(std::span<const float> gate,
                            std::span<const float> up, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const double e = gate[i];
    out[i] = static_cast<float>(e / (1 + std::exp(-e)) * up[i]);
  }
}

void SwigluBackwardInPlaceReference(std::span<const float> dout,
                                    std::span<float> gate, std::span<float> up,
                                    std::span<float> out) {
  for (size_t i = 0; i < gate.size(); ++i) {
    const double e = gate[i];
    const double u = up[i];
    const double d = dout[i];
    const double s = 1 / (1 + std::exp(-e));
    up[i] = static_cast<float>(d * e * s);
    gate[i] = static_cast<float>(d * u * s * (1 + e * (1 - s)));
    out[i] = static_cast<float>(e * s * u);
  }
}

void LowRankDownReference(std::span<const float> x_TD,
                          std::span<const float> p_DR, int64_t rank,
                          float scale, std::span<float> out_TR) {
  const size_t width = p_DR.size() / rank;
  for (size_t i = 0; i < out_TR.size(); ++i) {
    const size_t t = i / rank, r = i % rank;
    double sum = 0;
    for (size_t j = 0; j < width; ++j) {
      sum += static_cast<double>(x_TD[t * width + j]) * p_DR[j * rank + r];
    }
    out_TR[i] = static_cast<float>(scale * sum);
  }
}

void CrossEntropyInPlaceReference(std::span<float> logits, int64_t vocabulary,
                                  std::span<const int64_t> labels, float scale,
                                  std::span<double> nll) {
  for (size_t row = 0; row < labels.size(); ++row) {
    float* z = logits.data() + row * static_cast<size_t>(vocabulary);
    const double m = *std::max_element(z, z + vocabulary);
    double sum = 0;
    for (int64_t i = 0; i < vocabulary; ++i) sum += std::exp(z[i] - m);
    nll[row] = m + std::log(sum) - z[labels[row]];
    for (int64_t i = 0; i < vocabulary; ++i) {
      const double p = std::exp(z[i] - m) / sum;
      z[i] = static_cast<float>(scale * (p - (i == labels[row] ? 1 : 0)));
    }
  }
}

void TileSquaresReference(std::span<const float> values,
                          std::span<double> tiles) {
  for (size_t tile = 0; tile < tiles.size(); ++tile) {
    const size_t end = std::min(values.size(), (tile + 1) * kNormTile);
    tiles[tile] = 0;
    for (size_t i = tile * kNormTile; i < end; ++i) {
      tiles[tile] += static_cast<double>(values[i]) * values[i];
    }
  }
}

void Nf4QuantizeReference(std::span<const float> weights,
                          std::span<uint8_t> packed, std::span<float> absmax) {
  const size_t block = static_cast<size_t>(kNf4Block);
  std::fill(packed.begin(), packed.end(), 0x77);
  std::fill(absmax.begin(), absmax.end(), 0.0f);
  for (size_t i = 0; i < weights.size(); ++i) {
    absmax[i / block] = std::max(absmax[i / block], std::abs(weights[i]));
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    const float inverse = 1.0f / absmax[i / block];
    const float s = std::clamp(weights[i] * inverse, -1.0f, 1.0f);
    int code = 0;
    while (code < 15 && s > (kNf4Values[code] + kNf4Values[code + 1]) / 2) {
      ++code;
    }
    uint8_t& byte = packed[i / 2];
    byte = static_cast<uint8_t>(i % 2 == 0 ? code << 4 | (byte & 0x0f)
                                           : (byte & 0xf0) | code);
  }
}

void Nf4DequantizeReference(std::span<const uint8_t> packed,
                            std::span<const float> absmax,
                            std::span<float> weights, Nf4Values values) {
  for (size_t i = 0; i < weights.size(); ++i) {
    const int code = i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15;
    weights[i] = values[static_cast<size_t>(code)] *
                 absmax[i / static_cast<size_t>(kNf4Block)];
  }
}

}  // namespace ft
