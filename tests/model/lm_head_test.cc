// SPDX-License-Identifier: Apache-2.0
//
// The loss is made chunk by chunk of rows: what it gives, and every gradient,
// is that of autograd over all rows at once.

#include "model/lm_head.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

namespace ft {
namespace {

constexpr int64_t kTokens = 400, kDim = 8, kVocabulary = 65536;
constexpr double kEps = 1e-5, kScale = 0.125;

struct Problem {
  at::Tensor hidden_TD = at::randn({kTokens, kDim});
  at::Tensor norm_D = at::randn({kDim});
  // Logits of a spread of about one, as a model's: the error of an exponential
  // grows with them.
  at::Tensor head_VD =
      at::randn({kVocabulary, kDim}) / std::sqrt(static_cast<double>(kDim));
  std::vector<int64_t> rows, labels;

  Problem() {
    // 300 of the rows: two whole chunks of 128 and a part.
    for (int64_t i = 0; i < 300; ++i) {
      rows.push_back(i + i / 3);
      labels.push_back(i * 9973 % kVocabulary);
    }
    for (at::Tensor* tensor : {&hidden_TD, &norm_D, &head_VD}) {
      tensor->set_requires_grad(true);
    }
  }
  std::vector<at::Tensor> TakeGradients() {
    std::vector<at::Tensor> gradients;
    for (at::Tensor* tensor : {&hidden_TD, &norm_D, &head_VD}) {
      gradients.push_back(tensor->grad().clone());
      tensor->mutable_grad().reset();
    }
    return gradients;
  }
};

at::Tensor LongTensor(const std::vector<int64_t>& values) {
  return at::tensor(values, at::TensorOptions().dtype(at::kLong));
}

TEST(LmHeadTest, ChunksGiveTheLossAndGradientsOfAllRowsAtOnce) {
  Problem problem;
  std::vector<double> nll;
  const at::Tensor loss = LmHeadLoss(
      problem.hidden_TD,
      {.norm_D = problem.norm_D, .head_VD = problem.head_VD, .eps = kEps},
      problem.rows, problem.labels, kScale, &nll);
  loss.backward();
  const std::vector<at::Tensor> got = problem.TakeGradients();

  // In fp64, so that the bound is ours alone.
  const at::Tensor x =
      problem.hidden_TD.index_select(0, LongTensor(problem.rows))
          .to(at::kDouble);
  const at::Tensor normed = x * at::rsqrt(x.square().mean(1, true) + kEps) *
                            problem.norm_D.to(at::kDouble);
  const at::Tensor want_nll =
      -at::log_softmax(normed.mm(problem.head_VD.to(at::kDouble).t()), 1)
           .gather(1, LongTensor(problem.labels).unsqueeze(1))
           .squeeze(1);
  const at::Tensor want = want_nll.sum() * kScale;
  want.backward();

  EXPECT_NEAR(loss.item<double>(), want.item<double>(),
              1e-6 * want.item<double>());
  ASSERT_EQ(nll.size(), problem.rows.size());
  for (size_t i = 0; i < nll.size(); ++i) {
    EXPECT_NEAR(nll[i], want_nll[i].item<double>(), 1e-4) << i;
  }
  const std::vector<at::Tensor> expected = problem.TakeGradients();
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_LE(
        ((got[i] - expected[i]).norm() / expected[i].norm()).item<double>(),
        1e-5)
        << i;
  }
}

TEST(LmHeadTest, OnlyTheRowsAskedForHaveAGradient) {
  Problem problem;
  LmHeadLoss(
      problem.hidden_TD,
      {.norm_D = problem.norm_D, .head_VD = problem.head_VD, .eps = kEps},
      {3, 399}, {1, 2}, kScale, nullptr)
      .backward();
  const at::Tensor norms = problem.hidden_TD.grad().norm(2, 1);
  for (int64_t row = 0; row < kTokens; ++row) {
    EXPECT_EQ(norms[row].item<float>() > 0, row == 3 || row == 399) << row;
  }
}

}  // namespace
}  // namespace ft
