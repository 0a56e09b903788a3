// SPDX-License-Identifier: Apache-2.0

#include "collective/tree.h"

#include <algorithm>
#include <bit>

#include "common/check.h"

namespace ft {
namespace {

// Elements summed at a time: the partial sums stay in the cache.
constexpr size_t kBlock = 2048;

// The sum of parts [first, last) at elements [begin, begin + size).
template <typename Element>
void SumBlock(std::span<const Element* const> parts, size_t first, size_t last,
              size_t begin, size_t size, Element* out) {
  if (last - first == 1) {
    std::copy_n(parts[first] + begin, size, out);
    return;
  }
  const size_t middle = first + std::bit_floor(last - first - 1);
  Element right[kBlock];
  SumBlock(parts, first, middle, begin, size, out);
  SumBlock(parts, middle, last, begin, size, right);
  for (size_t i = 0; i < size; ++i) out[i] += right[i];
}

template <typename Element>
void Sum(std::span<const Element* const> parts, std::span<Element> out) {
  FT_CHECK(!parts.empty());
  Element block[kBlock];
  for (size_t begin = 0; begin < out.size(); begin += kBlock) {
    const size_t size = std::min(kBlock, out.size() - begin);
    SumBlock(parts, 0, parts.size(), begin, size, block);
    std::copy_n(block, size, out.data() + begin);
  }
}

}  // namespace

void TreeSum(std::span<const float* const> parts, std::span<float> out) {
  Sum(parts, out);
}

void TreeSum(std::span<const double* const> parts, std::span<double> out) {
  Sum(parts, out);
}

}  // namespace ft
