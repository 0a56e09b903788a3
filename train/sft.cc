// SPDX-License-Identifier: Apache-2.0

#include "train/sft.h"

#include "train/collate.h"

namespace ft {

at::Tensor Sft::Sum(Transformer& model, const MicroBatch& batch, double scale,
                    const NoiseKey* noise, std::vector<double>* nll) const {
  const at::Tensor hidden_TD = model.Forward(Collate(batch), noise);
  return model.LossSum(hidden_TD, batch.rows, batch.labels, scale, nll);
}

}  // namespace ft
