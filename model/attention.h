// SPDX-License-Identifier: Apache-2.0
//
// Causal attention over packed segments, with the rotary embedding inside: one
// call a segment, so the cost is the sum of squares of the segments' lengths
// and no mask exists. Scores are scaled by head_dim^-1/2; key head j serves the
// query heads [j g, (j + 1) g), g = heads / kv heads.

#pragma once

#include <ATen/core/Tensor.h>

#include "formats/model_spec.h"
#include "model/batch.h"
#include "model/rope.h"

namespace ft {

// q_TD [T, heads * head_dim], k_TD and v_TD [T, kv heads * head_dim], before
// rope; returns [T, heads * head_dim]. Overwrites the elements of q and k: they
// must be outputs that nobody else reads. `table` covers every position.
at::Tensor PackedAttention(const at::Tensor& q_TD, const at::Tensor& k_TD,
                           const at::Tensor& v_TD, const ModelSpec& spec,
                           const PackedBatch& batch, const RopeTable& table);

}  // namespace ft
