// SPDX-License-Identifier: Apache-2.0

#include "model/kv_cache.h"

#include <ATen/ops/empty.h>

#include "common/check.h"

namespace ft {

KvCache::KvCache(const ModelSpec& spec, int64_t capacity)
    : kv_heads_(spec.num_kv_heads),
      head_dim_(spec.head_dim),
      capacity_(capacity) {
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    keys_.push_back(at::empty({capacity, kv_heads_, head_dim_}));
    values_.push_back(at::empty({capacity, kv_heads_, head_dim_}));
  }
}

KvCache::KeysAndValues KvCache::Append(int64_t layer, const at::Tensor& keys_TD,
                                       const at::Tensor& values_TD) {
  const int64_t tokens = keys_TD.size(0);
  FT_CHECK(length_ + tokens <= capacity_);
  keys_[layer]
      .narrow(0, length_, tokens)
      .copy_(keys_TD.view({tokens, kv_heads_, head_dim_}));
  values_[layer]
      .narrow(0, length_, tokens)
      .copy_(values_TD.view({tokens, kv_heads_, head_dim_}));
  return {keys_[layer].narrow(0, 0, length_ + tokens),
          values_[layer].narrow(0, 0, length_ + tokens)};
}

}  // namespace ft
