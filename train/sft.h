// SPDX-License-Identifier: Apache-2.0
//
// Supervised fine-tuning: L = sum of -log p(target) / N, N = the targets of the
// whole optimizer step over all ranks and micro-batches, so that the mean does
// not depend on how unevenly targets lie.

#pragma once

#include "train/objective.h"

namespace ft {

class Sft : public Objective {
 public:
  at::Tensor Sum(Transformer& model, const MicroBatch& batch, double scale,
                 const NoiseKey* noise,
                 std::vector<double>* nll) const override;
};

}  // namespace ft
