// SPDX-License-Identifier: Apache-2.0
//
// What is minimised: the loss summed over the targets of a micro-batch. Each
// stage of a job file is a small class of its own; the loop knows none.

#pragma once

#include <ATen/core/Tensor.h>

#include "data/loader.h"
#include "model/transformer.h"

namespace ft {

class Objective {
 public:
  virtual ~Objective() = default;

  // A scalar of the graph: the sum of the losses of the batch's targets, times
  // `scale` (1 / the targets of the whole step). `nll`, if given, becomes the
  // losses themselves.
  virtual at::Tensor Sum(Transformer& model, const MicroBatch& batch,
                         double scale, const NoiseKey* noise,
                         std::vector<double>* nll) const = 0;
};

}  // namespace ft
