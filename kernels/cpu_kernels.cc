// SPDX-License-Identifier: Apache-2.0
//
// The fast forms: plain loops over 16 lanes that the compiler turns into
// vectors. Compiled once an instruction set (CMakeLists.txt) with
// FT_KERNEL_TABLE as the name of the table. Nothing here may call an inline
// function of another header: its copy could carry instructions that an older
// processor lacks.

#include "kernels/cpu_kernels.h"
#include "kernels/nf4_table.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ft::internal {
namespace {

constexpr int kLanes = 16;

inline float Sqrt(float x) { return __builtin_sqrtf(x); }

// exp within 2 ulp: 2^n by the exponent bits, the rest by a polynomial
// (Cephes' expf). x is clamped to [-87.3, 88.3].
inline float Exp(float x) {
  x = x > 88.3f ? 88.3f : x;
  x = x < -87.3f ? -87.3f : x;
  const float shifted = x * 1.44269504088896341f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float e = (p * (r * r) + r) + 1.0f;
  const int exponent = (static_cast<int>(n) + 127) << 23;
  float scale;
  __builtin_memcpy(&scale, &exponent, sizeof(scale));
  return e * scale;
}

// The lanes of a sum, added pairwise.
inline double AddLanes(const float* lanes) {
  double sums[kLanes];
  for (int l = 0; l < kLanes; ++l) sums[l] = lanes[l];
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) sums[l] += sums[l + width];
  }
  return sums[0];
}

void AdamW(const AdamWConstants& c, int64_t n, float* __restrict p,
           const float* __restrict g, float* __restrict m,
           float* __restrict v) {
  for (int64_t i = 0; i < n; ++i) {
    const float gradient = g[i] * c.gradient_scale;
    m[i] = c.beta1 * m[i] + c.one_minus_beta1 * gradient;
    v[i] = c.beta2 * v[i] + c.one_minus_beta2 * (gradient * gradient);
    const float denominator = Sqrt(v[i]) * c.inv_sqrt_correction2 + c.eps;
    p[i] = p[i] * c.decay_factor - c.step_size * (m[i] / denominator);
  }
}

void RmsNormForward(int64_t rows, int64_t dim, const float* __restrict x,
                    const float* __restrict w, float eps, float* __restrict y,
                    float* __restrict rstd) {
  for (int64_t row = 0; row < rows; ++row, x += dim, y += dim) {
    float lanes[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) lanes[l] += x[i + l] * x[i + l];
    }
    for (int l = 0; i + l < dim; ++l) lanes[l] += x[i + l] * x[i + l];
    const double mean = AddLanes(lanes) / static_cast<double>(dim);
    const float r = 1.0f / static_cast<float>(
                               __builtin_sqrt(mean + static_cast<double>(eps)));
    rstd[row] = r;
    for (int64_t j = 0; j < dim; ++j) y[j] = (x[j] * r) * w[j];
  }
}

void RmsNormBackward(int64_t rows, int64_t dim, const float* dy,
                     const float* __restrict x, const float* __restrict w,
                     const float* __restrict rstd, float* dx) {
  for (int64_t row = 0; row < rows; ++row, x += dim, dy += dim, dx += dim) {
    float lanes[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        lanes[l] += (w[i + l] * dy[i + l]) * x[i + l];
      }
    }
    for (int l = 0; i + l < dim; ++l) {
      lanes[l] += (w[i + l] * dy[i + l]) * x[i + l];
    }
    const float r = rstd[row];
    const float dot =
        static_cast<float>(AddLanes(lanes) / static_cast<double>(dim));
    const float factor = (r * r) * (r * dot);
#pragma GCC ivdep
    for (int64_t j = 0; j < dim; ++j) {
      dx[j] = r * (w[j] * dy[j]) - x[j] * factor;
    }
  }
}

void Rope(float* x, int64_t tokens, int64_t heads, int64_t head_dim,
          int64_t rotary_dim, int64_t row_stride, const int32_t* positions,
          const float* cos, const float* sin, float sign) {
  const int64_t half = rotary_dim / 2;
  for (int64_t token = 0; token < tokens; ++token) {
    const float* __restrict c = cos + positions[token] * half;
    const float* __restrict s = sin + positions[token] * half;
    for (int64_t head = 0; head < heads; ++head) {
      float* __restrict low = x + token * row_stride + head * head_dim;
      float* __restrict high = low + half;
#pragma GCC ivdep
      for (int64_t i = 0; i < half; ++i) {
        const float a = low[i];
        const float b = high[i];
        const float turned = sign * s[i];
        low[i] = a * c[i] - b * turned;
        high[i] = b * c[i] + a * turned;
      }
    }
  }
}

// The exponentials of a block have a loop of their own: beside a division the
// compiler splits the clamp into branches and divides once for each.
constexpr int64_t kExpBlock = 128;

void SwigluForward(int64_t n, const float* gate, const float* up, float* out) {
  float exps[kExpBlock];
  for (int64_t begin = 0; begin < n; begin += kExpBlock) {
    const int64_t end = begin + kExpBlock < n ? begin + kExpBlock : n;
    for (int64_t i = begin; i < end; ++i) exps[i - begin] = Exp(-gate[i]);
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) {
      out[i] = (gate[i] / (1.0f + exps[i - begin])) * up[i];
    }
  }
}

void SwigluBackward(int64_t n, const float* dout, float* gate, float* up,
                    float* out) {
  float exps[kExpBlock];
  for (int64_t begin = 0; begin < n; begin += kExpBlock) {
    const int64_t end = begin + kExpBlock < n ? begin + kExpBlock : n;
    for (int64_t i = begin; i < end; ++i) exps[i - begin] = Exp(-gate[i]);
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) {
      const float e = gate[i];
      const float u = up[i];
      const float d = dout[i];
      const float s = 1.0f / (1.0f + exps[i - begin]);
      const float silu = e * s;
      up[i] = d * silu;
      gate[i] = (d * u) * (s * (1.0f + e * (1.0f - s)));
      out[i] = silu * u;
    }
  }
}

typedef float Vector __attribute__((vector_size(32)));
constexpr int64_t kVectorSize = 8;

// kRows rows of `out`, eight columns each, in registers over all of the width.
// The loops over rows must be unrolled, or the sums live in memory.
template <int kRows>
inline void LowRankTile(int64_t width, int64_t rank, const float* x,
                        const float* p, float scale, float* out) {
  Vector sums[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) sums[i] = Vector{};
  for (int64_t j = 0; j < width; ++j) {
    Vector column;
    __builtin_memcpy(&column, p + j * rank, sizeof(column));
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) sums[i] += x[i * width + j] * column;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    const Vector scaled = scale * sums[i];
    __builtin_memcpy(out + i * rank, &scaled, sizeof(scaled));
  }
}

template <int kRows>
inline void LowRankRows(int64_t width, int64_t rank, const float* x,
                        const float* p, float scale, float* out) {
  int64_t r = 0;
  for (; r + kVectorSize <= rank; r += kVectorSize) {
    LowRankTile<kRows>(width, rank, x, p + r, scale, out + r);
  }
  for (; r < rank; ++r) {
    for (int i = 0; i < kRows; ++i) {
      float sum = 0;
      for (int64_t j = 0; j < width; ++j) {
        sum += x[i * width + j] * p[j * rank + r];
      }
      out[i * rank + r] = scale * sum;
    }
  }
}

void LowRankDown(int64_t tokens, int64_t width, int64_t rank, const float* x,
                 const float* p, float scale, float* out) {
  constexpr int kRows = 8;
  int64_t t = 0;
  for (; t + kRows <= tokens; t += kRows) {
    LowRankRows<kRows>(width, rank, x + t * width, p, scale, out + t * rank);
  }
  for (; t < tokens; ++t) {
    LowRankRows<1>(width, rank, x + t * width, p, scale, out + t * rank);
  }
}

void CrossEntropy(int64_t rows, int64_t vocabulary, float* z,
                  const int64_t* labels, float scale, double* nll) {
  constexpr int64_t kBlock = 512;
  for (int64_t row = 0; row < rows; ++row, z += vocabulary) {
    float highest[kLanes];
    for (int l = 0; l < kLanes; ++l) highest[l] = z[0];
    int64_t i = 0;
    for (; i + kLanes <= vocabulary; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        highest[l] = z[i + l] > highest[l] ? z[i + l] : highest[l];
      }
    }
    float m = highest[0];
    for (int l = 1; l < kLanes; ++l) m = highest[l] > m ? highest[l] : m;
    for (; i < vocabulary; ++i) m = z[i] > m ? z[i] : m;

    const float target = z[labels[row]];
    double sum = 0;
    for (int64_t begin = 0; begin < vocabulary; begin += kBlock) {
      const int64_t end =
          begin + kBlock < vocabulary ? begin + kBlock : vocabulary;
      float lanes[kLanes] = {};
      int64_t j = begin;
      for (; j + kLanes <= end; j += kLanes) {
        for (int l = 0; l < kLanes; ++l) {
          const float e = Exp(z[j + l] - m);
          z[j + l] = e;
          lanes[l] += e;
        }
      }
      for (int l = 0; j + l < end; ++l) {
        const float e = Exp(z[j + l] - m);
        z[j + l] = e;
        lanes[l] += e;
      }
      sum += AddLanes(lanes);
    }
    nll[row] = static_cast<double>(m) + __builtin_log(sum) -
               static_cast<double>(target);
    // A row with NaN or infinity must not look fine after the clamp in Exp.
    if (!(m - m == 0.0f)) nll[row] = static_cast<double>(m - m);
    const float factor = static_cast<float>(static_cast<double>(scale) / sum);
    for (int64_t j = 0; j < vocabulary; ++j) z[j] *= factor;
    z[labels[row]] -= scale;
  }
}

void TileSquares(int64_t n, const float* x, double* tiles) {
  constexpr int64_t kTile = 1024;
  for (int64_t begin = 0; begin < n; begin += kTile) {
    const int64_t end = begin + kTile < n ? begin + kTile : n;
    double lanes[kLanes] = {};
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        const double value = static_cast<double>(x[i + l]);
        lanes[l] += value * value;
      }
    }
    for (int l = 0; i + l < end; ++l) {
      const double value = static_cast<double>(x[i + l]);
      lanes[l] += value * value;
    }
    for (int width = kLanes / 2; width > 0; width /= 2) {
      for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
    }
    tiles[begin / kTile] = lanes[0];
  }
}

constexpr int kNf4BlockSize = 64;
constexpr int kNf4Zero = 7;

void Nf4Quantize(int64_t n, const float* x, uint8_t* packed, float* absmax) {
  for (int64_t begin = 0; begin < n; begin += kNf4BlockSize, x += kNf4BlockSize,
               packed += kNf4BlockSize / 2, ++absmax) {
    const int count =
        static_cast<int>(n - begin < kNf4BlockSize ? n - begin : kNf4BlockSize);
    float s[kNf4BlockSize] = {};
    for (int i = 0; i < count; ++i) s[i] = x[i];
    float lanes[kLanes] = {};
    for (int i = 0; i < kNf4BlockSize; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        const float a = __builtin_fabsf(s[i + l]);
        lanes[l] = a > lanes[l] ? a : lanes[l];
      }
    }
    float highest = 0;
    for (int l = 0; l < kLanes; ++l) {
      highest = lanes[l] > highest ? lanes[l] : highest;
    }
    *absmax = highest;
    // Infinite over zeros and the least subnormals: 0 * infinity is no number,
    // and stands for zero.
    const float inverse = 1.0f / highest;
    int codes[kNf4BlockSize] = {};
    for (int i = 0; i < kNf4BlockSize; ++i) {
      float v = s[i] * inverse;
      v = v > 1.0f ? 1.0f : v;
      v = v < -1.0f ? -1.0f : v;
      s[i] = v == v ? v : 0.0f;
    }
    for (const float midpoint : kNf4Midpoints) {
      for (int i = 0; i < kNf4BlockSize; ++i) codes[i] += s[i] > midpoint;
    }
    if (count % 2 != 0) codes[count] = kNf4Zero;
    for (int i = 0; i < (count + 1) / 2; ++i) {
      packed[i] = static_cast<uint8_t>(codes[2 * i] << 4 | codes[2 * i + 1]);
    }
  }
}

void Nf4DequantizeBlock(int count, const uint8_t* packed, float absmax,
                        const float* values, float* x) {
  int i = 0;
#if defined(__AVX2__)
  const __m256 low = _mm256_loadu_ps(values);
  const __m256 high = _mm256_loadu_ps(values + 8);
  const __m256 scale = _mm256_set1_ps(absmax);
  // Bit 3 of a code chooses the half of the table.
  const auto look_up = [&](__m256i codes) {
    const __m256 value =
        _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, codes),
                         _mm256_permutevar8x32_ps(high, codes),
                         _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
    return _mm256_mul_ps(value, scale);
  };
  for (; i + 16 <= count; i += 16) {
    const __m256i bytes = _mm256_cvtepu8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed + i / 2)));
    const __m256 even = look_up(_mm256_srli_epi32(bytes, 4));
    const __m256 odd = look_up(_mm256_and_si256(bytes, _mm256_set1_epi32(15)));
    const __m256 first = _mm256_unpacklo_ps(even, odd);
    const __m256 second = _mm256_unpackhi_ps(even, odd);
    _mm256_storeu_ps(x + i, _mm256_permute2f128_ps(first, second, 0x20));
    _mm256_storeu_ps(x + i + 8, _mm256_permute2f128_ps(first, second, 0x31));
  }
#endif
  for (; i < count; ++i) {
    const int byte = packed[i / 2];
    x[i] = values[i % 2 == 0 ? byte >> 4 : byte & 15] * absmax;
  }
}

void Nf4Dequantize(int64_t n, const uint8_t* packed, const float* absmax,
                   const float* values, float* x) {
  for (int64_t begin = 0; begin < n; begin += kNf4BlockSize) {
    const int count =
        static_cast<int>(n - begin < kNf4BlockSize ? n - begin : kNf4BlockSize);
    Nf4DequantizeBlock(count, packed + begin / 2, absmax[begin / kNf4BlockSize],
                       values, x + begin);
  }
}

}  // namespace

const CpuKernels FT_KERNEL_TABLE = {
    .adamw = &AdamW,
    .rms_norm_forward = &RmsNormForward,
    .rms_norm_backward = &RmsNormBackward,
    .rope = &Rope,
    .swiglu_forward = &SwigluForward,
    .swiglu_backward = &SwigluBackward,
    .low_rank_down = &LowRankDown,
    .cross_entropy = &CrossEntropy,
    .tile_squares = &TileSquares,
    .nf4_quantize = &Nf4Quantize,
    .nf4_dequantize = &Nf4Dequantize,
};

}  // namespace ft::internal
