// SPDX-License-Identifier: Apache-2.0
//
// Linears with an optional low-rank update (arXiv:2106.09685), fused over the
// linears that read the same input:
//
//   y = x W^T + b + s drop(x) A^T B^T
//   G = s dy B,  dx = dy W + drop(G A),  dA = G^T drop(x),
//   dB = s dy^T (drop(x) A^T),  dW = dy^T x,  db = sum of dy
//
// One node of the graph a group; only x and drop(x) A^T are saved. dW and db
// are formed only where W and b learn. A weight in NF4 (packed_weight.h) is
// expanded for y and again for dx; it never learns (arXiv:2305.14314).

#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "model/batch.h"
#include "model/packed_weight.h"

namespace ft {

struct Linear {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  at::Tensor weight;   // [out, in]; undefined where it is packed
  std::shared_ptr<PackedWeight> packed;
  at::Tensor bias;    // [out], or undefined
  at::Tensor lora_A;  // [R, in], or undefined: no update
  at::Tensor lora_B;  // [out, R]
  double lora_scale = 0;
  double lora_dropout = 0;
  bool lora_enabled = true;

  int64_t out_features() const {
    return packed != nullptr ? packed->shape[0] : weight.size(0);
  }
  int64_t in_features() const {
    return packed != nullptr ? packed->shape[1] : weight.size(1);
  }
  bool is_adapted() const { return lora_A.defined(); }
  bool uses_lora() const { return is_adapted() && lora_enabled; }
};

// The outputs of up to three linears of one input, each [T, out].
std::vector<at::Tensor> LinearGroup(const at::Tensor& x_TD,
                                    const std::vector<const Linear*>& linears,
                                    const NoiseKey* noise);

// down(silu(gate(x)) * up(x)). Saves x, the two products and what LoRA needs;
// the SwiGLU product is computed again in the backward pass, which overwrites
// the two saved products: it can run once only.
at::Tensor SwigluMlp(const at::Tensor& x_TD, const Linear& gate,
                     const Linear& up, const Linear& down,
                     const NoiseKey* noise);

}  // namespace ft
