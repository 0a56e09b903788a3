// SPDX-License-Identifier: Apache-2.0
//
// The models that quantised ones are compared with.

#pragma once

#include <string>
#include <vector>

#include "common/check.h"
#include "common/file.h"
#include "formats/hf_directory.h"
#include "formats/safetensors.h"
#include "model/packed_weight.h"
#include "model/weights.h"

namespace ft::testing {

// The model in `from`, its linears quantised and expanded to fp32 again, into
// the existing folder `to`.
inline void ExpandedCopy(const std::string& from,
                         const Nf4Quantization& options,
                         const std::string& to) {
  const HfDirectory files = OpenHfDirectory(from).value();
  std::vector<at::Tensor> alive;
  std::vector<TensorBytes> tensors;
  for (const ParameterSpec& parameter : files.spec.Parameters()) {
    const TensorView* view = files.weights.Get(parameter.name).value();
    if (parameter.role == ParameterRole::kLinearWeight) {
      PackedWeight packed = QuantizeTensor(*view, options).value();
      packed.scratch = std::make_shared<WeightScratch>();
      alive.push_back(packed.Expand());
    } else {
      alive.push_back(TensorOf(*view).value());
    }
    tensors.push_back(BytesOf(parameter.name, alive.back()));
  }
  FT_CHECK(WriteSafetensors(JoinPath(to, "model.safetensors"), tensors).ok());
  FT_CHECK(
      WriteFileAtomic(JoinPath(to, "config.json"),
                      ReadFile(JoinPath(from, "config.json"), 1 << 20).value())
          .ok());
}

}  // namespace ft::testing
