// SPDX-License-Identifier: Apache-2.0

#include "model/lm_head.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include "formats/model_shape.h"
#include "kernels/cross_entropy.h"
#include "model/rms_norm.h"
#include "model/spans.h"

namespace ft {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LossFunction : public torch::autograd::Function<LossFunction> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& hidden_TD,
                            const at::Tensor& norm_D, const at::Tensor& head_VD,
                            double eps, const at::Tensor& rows_M,
                            const std::vector<int64_t>& labels, double scale,
                            bool wants_hidden, bool wants_norm, bool wants_head,
                            std::vector<double>* nll) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const at::Tensor hidden_MD = hidden_TD.index_select(0, rows_M);
    const NormedRows normed = RmsNormRows(hidden_MD, norm_D, eps);
    const int64_t count = hidden_MD.size(0), vocabulary = head_VD.size(0);
    const bool wants_rows = wants_hidden || wants_norm;
    at::Tensor dnormed_MD, dhead_VD;
    if (wants_rows) dnormed_MD = at::empty_like(normed.y_TD);
    if (wants_head) dhead_VD = at::zeros_like(head_VD);

    double sum = 0;
    std::vector<double> losses(static_cast<size_t>(count));
    const int64_t chunk = LossChunkRows(vocabulary);
    for (int64_t begin = 0; begin < count; begin += chunk) {
      const int64_t size = std::min(chunk, count - begin);
      const at::Tensor rows_CD = normed.y_TD.narrow(0, begin, size);
      const at::Tensor logits_CV = at::mm(rows_CD, head_VD.t());
      const std::span<float> logits = FloatsOf(logits_CV);
      ForRows(size, vocabulary, [&](int64_t first, int64_t last) {
        CrossEntropyInPlace(
            logits.subspan(first * vocabulary, (last - first) * vocabulary),
            vocabulary, std::span(labels).subspan(begin + first, last - first),
            static_cast<float>(scale),
            std::span(losses).subspan(begin + first, last - first));
      });
      if (wants_rows) {
        at::Tensor out = dnormed_MD.narrow(0, begin, size);
        at::mm_out(out, logits_CV, head_VD);
      }
      if (wants_head) dhead_VD.addmm_(logits_CV.t(), rows_CD);
    }
    for (const double loss : losses) sum += loss;
    if (nll != nullptr) *nll = losses;

    at::Tensor dhidden_TD, dnorm_D;
    if (wants_norm) {
      dnorm_D = (dnormed_MD * hidden_MD * normed.rstd_T.unsqueeze(1)).sum(0);
    }
    if (wants_hidden) {
      dhidden_TD = at::zeros_like(hidden_TD);
      dhidden_TD.index_copy_(
          0, rows_M,
          RmsNormRowsBackward(dnormed_MD, hidden_MD, norm_D, normed.rstd_T));
    }
    context->save_for_backward({dhidden_TD, dnorm_D, dhead_VD});
    return at::tensor(sum * scale, at::TensorOptions().dtype(at::kDouble));
  }

  static variable_list backward(AutogradContext* context,
                                variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    variable_list results(11);
    // Nearly always the loss itself is differentiated: then nothing is left to
    // do but to hand on what the forward pass formed.
    const double upstream = gradients[0].item<double>();
    for (size_t i = 0; i < 3; ++i) {
      if (!saved[i].defined()) continue;
      results[i] = upstream == 1 ? saved[i] : saved[i] * upstream;
    }
    return results;
  }
};

at::Tensor IndexTensor(const std::vector<int64_t>& rows) {
  return at::tensor(rows, at::TensorOptions().dtype(at::kLong));
}

}  // namespace

at::Tensor LmHeadLoss(const at::Tensor& hidden_TD, const HeadWeights& head,
                      const std::vector<int64_t>& rows,
                      const std::vector<int64_t>& labels, double scale,
                      std::vector<double>* nll) {
  FT_CHECK(rows.size() == labels.size());
  // The node's forward pass runs below autograd, where GradMode and
  // requires_grad of its inputs are not what the caller sees.
  const bool grad = c10::GradMode::is_enabled();
  return LossFunction::apply(hidden_TD, head.norm_D, head.head_VD, head.eps,
                             IndexTensor(rows), labels, scale,
                             grad && hidden_TD.requires_grad(),
                             grad && head.norm_D.requires_grad(),
                             grad && head.head_VD.requires_grad(), nll);
}

at::Tensor LmHeadLogits(const at::Tensor& hidden_TD, const HeadWeights& head,
                        const std::vector<int64_t>& rows) {
  c10::NoGradGuard no_grad;
  const NormedRows normed = RmsNormRows(
      hidden_TD.index_select(0, IndexTensor(rows)), head.norm_D, head.eps);
  return at::mm(normed.y_TD, head.head_VD.t());
}

}  // namespace ft
