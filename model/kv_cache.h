// SPDX-License-Identifier: Apache-2.0
//
// Keys and values of the tokens so far, for generation of one sequence.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "formats/model_spec.h"

namespace ft {

class KvCache {
 public:
  // Room for `capacity` tokens.
  KvCache(const ModelSpec& spec, int64_t capacity);

  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }

  // Puts the keys and values of new tokens of a layer behind the others, and
  // returns all: [length + new, kv heads, head_dim] each.
  struct KeysAndValues {
    at::Tensor keys, values;
  };
  KeysAndValues Append(int64_t layer, const at::Tensor& keys_TD,
                       const at::Tensor& values_TD);

  // The new tokens are in all layers.
  void Advance(int64_t tokens) { length_ += tokens; }

 private:
  const int64_t kv_heads_, head_dim_, capacity_;
  int64_t length_ = 0;
  std::vector<at::Tensor> keys_, values_;  // [capacity, kv heads, head_dim]
};

}  // namespace ft
