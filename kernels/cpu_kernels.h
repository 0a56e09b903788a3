// SPDX-License-Identifier: Apache-2.0
//
// The table of fast CPU forms. cpu_kernels.cc is compiled once an instruction
// set, always without fused multiply-adds, so that all tables give the same
// bits. Only kernels/ includes this file.

#pragma once

#include <cstdint>

namespace ft::internal {

struct AdamWConstants {
  float decay_factor;  // 1 - lr * weight_decay
  float beta1;
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float step_size;             // lr / (1 - beta1^t)
  float inv_sqrt_correction2;  // 1 / sqrt(1 - beta2^t)
  float eps;
  float gradient_scale;
};

struct CpuKernels {
  void (*adamw)(const AdamWConstants& c, int64_t n, float* p, const float* g,
                float* m, float* v);
  void (*rms_norm_forward)(int64_t rows, int64_t dim, const float* x,
                           const float* w, float eps, float* y, float* rstd);
  void (*rms_norm_backward)(int64_t rows, int64_t dim, const float* dy,
                            const float* x, const float* w, const float* rstd,
                            float* dx);
  void (*rope)(float* x, int64_t tokens, int64_t heads, int64_t head_dim,
               int64_t rotary_dim, int64_t row_stride, const int32_t* positions,
               const float* cos, const float* sin, float sign);
  void (*swiglu_forward)(int64_t n, const float* gate, const float* up,
                         float* out);
  void (*swiglu_backward)(int64_t n, const float* dout, float* gate, float* up,
                          float* out);
  void (*low_rank_down)(int64_t tokens, int64_t width, int64_t rank,
                        const float* x, const float* p, float scale,
                        float* out);
  void (*cross_entropy)(int64_t rows, int64_t vocabulary, float* z,
                        const int64_t* labels, float scale, double* nll);
  void (*tile_squares)(int64_t n, const float* x, double* tiles);
  void (*nf4_quantize)(int64_t n, const float* x, uint8_t* packed,
                       float* absmax);
  void (*nf4_dequantize)(int64_t n, const uint8_t* packed, const float* absmax,
                         const float* values, float* x);
};

extern const CpuKernels kPortableKernels;
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;

const CpuKernels& ActiveKernels();

}  // namespace ft::internal
