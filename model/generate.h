// SPDX-License-Identifier: Apache-2.0
//
// Token by token: greedy, or drawn from what temperature, top_k and top_p
// leave. Draws are a function of the seed and the place, so a text can be made
// again.

#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/transformer.h"

namespace ft {

struct GenerateOptions {
  int64_t max_new_tokens = 1024;
  // Generation stops after one of them; it is not returned.
  std::vector<int64_t> stop_ids;

  bool sample = false;  // false: the likeliest token, the first on a tie.
  double temperature = 0.95;
  double top_p = 0.7;
  int64_t top_k = 50;
  uint64_t seed = 0;
};

// Continues `prompt`. `on_token` is called with each new token; returning false
// ends it. REQUIRES: !prompt.empty()
std::vector<int64_t> Generate(
    Transformer& model, const std::vector<int64_t>& prompt,
    const GenerateOptions& options,
    const std::function<bool(int64_t)>& on_token = nullptr);

// The choice among logits [V] for the `index`-th new token.
int64_t ChooseToken(const at::Tensor& logits_V, const GenerateOptions& options,
                    int64_t index);

}  // namespace ft
