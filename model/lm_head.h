// SPDX-License-Identifier: Apache-2.0
//
// Final norm, head and cross-entropy in one node, only for the rows that have a
// target, chunk by chunk: no [T, V] tensor exists. The gradient of the hidden
// rows is formed in the forward pass, while a chunk's logits are in the cache;
// a frozen head costs two GEMMs.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace ft {

struct HeadWeights {
  at::Tensor norm_D;
  at::Tensor head_VD;
  double eps = 0;
};

// The sum over `rows` of -log p(label) times `scale`, a scalar of the graph.
//   hidden_TD  output of the last block, before the final norm
//   rows       M indices of tokens, ascending
//   labels     M vocabulary indices
// `nll`, if given, becomes the M losses themselves (fp64).
at::Tensor LmHeadLoss(const at::Tensor& hidden_TD, const HeadWeights& head,
                      const std::vector<int64_t>& rows,
                      const std::vector<int64_t>& labels, double scale,
                      std::vector<double>* nll = nullptr);

// Logits [M, V] of the rows, without a graph.
at::Tensor LmHeadLogits(const at::Tensor& hidden_TD, const HeadWeights& head,
                        const std::vector<int64_t>& rows);

}  // namespace ft
