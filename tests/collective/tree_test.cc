// SPDX-License-Identifier: Apache-2.0
//
// The canonical order of a sum, and that aligned blocks of it may be added
// first.

#include "collective/tree.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace ft {
namespace {

std::vector<std::vector<float>> Parts(size_t count, size_t size) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> parts(count, std::vector<float>(size));
  for (auto& part : parts) {
    for (float& value : part) value = normal(random) * std::exp(normal(random));
  }
  return parts;
}

std::vector<float> Sum(const std::vector<std::vector<float>>& parts) {
  std::vector<const float*> pointers;
  for (const auto& part : parts) pointers.push_back(part.data());
  std::vector<float> sum(parts[0].size());
  TreeSum(pointers, sum);
  return sum;
}

TEST(TreeTest, TheOrderIsTheDocumentedOne) {
  const auto p = Parts(6, 5000);
  const auto sum = Sum(p);
  for (size_t i = 0; i < 5000; ++i) {
    EXPECT_EQ(sum[i], ((p[0][i] + p[1][i]) + (p[2][i] + p[3][i])) +
                          (p[4][i] + p[5][i]));
  }
}

TEST(TreeTest, AlignedBlocksAddedFirstDoNotChangeABit) {
  for (const size_t total : {2, 4, 6, 8, 12}) {
    const auto parts = Parts(total, 3000);
    const auto whole = Sum(parts);
    for (size_t block = 2; total % block == 0 && block <= total; block *= 2) {
      std::vector<std::vector<float>> sums;
      for (size_t begin = 0; begin < total; begin += block) {
        sums.push_back(
            Sum({parts.begin() + begin, parts.begin() + begin + block}));
      }
      EXPECT_EQ(Sum(sums), whole) << total << " in blocks of " << block;
    }
  }
}

}  // namespace
}  // namespace ft
