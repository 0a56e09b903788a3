// SPDX-License-Identifier: Apache-2.0

#include "model/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/philox.h"
#include "model/spans.h"

namespace ft {

int64_t ChooseToken(const at::Tensor& logits_V, const GenerateOptions& options,
                    int64_t index) {
  const at::Tensor contiguous = logits_V.contiguous();
  const std::span<const float> logits = FloatsOf(contiguous);
  if (!options.sample) {
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
  }

  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto keep = static_cast<size_t>(std::clamp<int64_t>(
      options.top_k, 1, static_cast<int64_t>(logits.size())));
  std::partial_sort(order.begin(), order.begin() + keep, order.end(),
                    [&](int64_t a, int64_t b) {
                      return logits[a] != logits[b] ? logits[a] > logits[b]
                                                    : a < b;
                    });
  order.resize(keep);

  std::vector<double> weights;
  double total = 0;
  for (const int64_t id : order) {
    weights.push_back(std::exp((static_cast<double>(logits[id]) -
                                static_cast<double>(logits[order[0]])) /
                               options.temperature));
    total += weights.back();
  }
  // The fewest of the likeliest that reach top_p; always at least one.
  double kept = 0;
  size_t count = 0;
  while (count < weights.size() && kept < options.top_p * total) {
    kept += weights[count++];
  }
  const uint64_t key = MixHash(HashOf("sample"), options.seed);
  double left = static_cast<double>(UniformOf(
                    Philox(key, static_cast<uint64_t>(index), 0)[0])) *
                kept;
  for (size_t i = 0; i < count; ++i) {
    left -= weights[i];
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

std::vector<int64_t> Generate(Transformer& model,
                              const std::vector<int64_t>& prompt,
                              const GenerateOptions& options,
                              const std::function<bool(int64_t)>& on_token) {
  FT_CHECK(!prompt.empty());
  KvCache cache(model.spec(),
                static_cast<int64_t>(prompt.size()) + options.max_new_tokens);
  std::vector<int64_t> tokens;
  std::vector<int64_t> next = prompt;
  while (static_cast<int64_t>(tokens.size()) < options.max_new_tokens) {
    const at::Tensor logits_V = model.Next(next, cache);
    const int64_t token =
        ChooseToken(logits_V, options, static_cast<int64_t>(tokens.size()));
    if (std::count(options.stop_ids.begin(), options.stop_ids.end(), token)) {
      break;
    }
    tokens.push_back(token);
    if (on_token != nullptr && !on_token(token)) break;
    next = {token};
  }
  return tokens;
}

}  // namespace ft
