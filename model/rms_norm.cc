// SPDX-License-Identifier: Apache-2.0

#include "model/rms_norm.h"

#include <ATen/ops/empty_like.h>

#include "kernels/rms_norm.h"
#include "model/spans.h"

namespace ft {
namespace {

struct RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& x_TD, const at::Tensor& weight_D,
                            double eps) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const NormedRows rows = RmsNormRows(x_TD, weight_D, eps);
    context->save_for_backward({x_TD, weight_D, rows.rstd_T});
    return rows.y_TD;
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x_TD = saved[0], &weight_D = saved[1], &rstd_T = saved[2];
    const at::Tensor dy_TD = gradients[0].contiguous();
    at::Tensor dx_TD, dweight_D;
    if (context->needs_input_grad(1)) {
      dweight_D = (dy_TD * x_TD * rstd_T.unsqueeze(1)).sum(0);
    }
    if (context->needs_input_grad(0)) {
      dx_TD = RmsNormRowsBackward(dy_TD, x_TD, weight_D, rstd_T);
    }
    return {dx_TD, dweight_D, at::Tensor()};
  }
};

}  // namespace

NormedRows RmsNormRows(const at::Tensor& x_TD, const at::Tensor& weight_D,
                       double eps) {
  const int64_t rows = x_TD.size(0), dim = x_TD.size(1);
  NormedRows normed{.y_TD = at::empty_like(x_TD),
                    .rstd_T = at::empty({rows}, x_TD.options())};
  const auto x = FloatsOf(x_TD), weight = FloatsOf(weight_D),
             y = FloatsOf(normed.y_TD), rstd = FloatsOf(normed.rstd_T);
  ForRows(rows, dim, [&](int64_t begin, int64_t end) {
    const size_t at = begin * dim, size = (end - begin) * dim;
    RmsNormForward(x.subspan(at, size), weight, static_cast<float>(eps),
                   y.subspan(at, size), rstd.subspan(begin, end - begin));
  });
  return normed;
}

at::Tensor RmsNormRowsBackward(const at::Tensor& dy_TD, const at::Tensor& x_TD,
                               const at::Tensor& weight_D,
                               const at::Tensor& rstd_T) {
  const int64_t rows = x_TD.size(0), dim = x_TD.size(1);
  at::Tensor dx_TD = at::empty_like(x_TD);
  const auto dy = FloatsOf(dy_TD), x = FloatsOf(x_TD),
             weight = FloatsOf(weight_D), rstd = FloatsOf(rstd_T),
             dx = FloatsOf(dx_TD);
  ForRows(rows, dim, [&](int64_t begin, int64_t end) {
    const size_t at = begin * dim, size = (end - begin) * dim;
    RmsNormBackward(dy.subspan(at, size), x.subspan(at, size), weight,
                    rstd.subspan(begin, end - begin), dx.subspan(at, size));
  });
  return dx_TD;
}

at::Tensor RmsNorm(const at::Tensor& x_TD, const at::Tensor& weight_D,
                   double eps) {
  return RmsNormFunction::apply(x_TD, weight_D, eps);
}

}  // namespace ft
