// SPDX-License-Identifier: Apache-2.0

#include "train/sft.h"

#include <numeric>

#include "train/collate.h"

namespace ft {

at::Tensor Sft::Sum(Transformer& model, const MicroBatch& batch, double scale,
                    const NoiseKey* noise, std::vector<double>* nll) const {
  const at::Tensor hidden_MD =
      model.ForwardRows(Collate(batch), batch.rows, noise);
  std::vector<int64_t> all(batch.rows.size());
  std::iota(all.begin(), all.end(), 0);
  return model.LossSum(hidden_MD, all, batch.labels, scale, nll);
}

}  // namespace ft
