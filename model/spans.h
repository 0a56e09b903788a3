// SPDX-License-Identifier: Apache-2.0
//
// The glue between at::Tensor and the spans of kernels/.

#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <span>

#include "common/check.h"

namespace ft {

// The elements of a contiguous fp32 tensor.
inline std::span<float> FloatsOf(const at::Tensor& tensor) {
  FT_CHECK(tensor.is_contiguous() && tensor.scalar_type() == at::kFloat);
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

// Calls run(begin, end) for parts of [0, rows), on all threads. Rows do not
// depend on each other, so the bits do not depend on the threads.
template <typename Run>
void ForRows(int64_t rows, int64_t row_cost, const Run& run) {
  constexpr int64_t kElementsWorthAThread = 1 << 15;
  const int64_t grain = std::max<int64_t>(
      1, kElementsWorthAThread / std::max<int64_t>(1, row_cost));
  at::parallel_for(0, rows, grain, run);
}

}  // namespace ft
