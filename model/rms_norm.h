// SPDX-License-Identifier: Apache-2.0
//
// RMSNorm with its own backward pass (kernels/rms_norm.h). The gradient of the
// weight is formed only if it learns.

#pragma once

#include <ATen/core/Tensor.h>

namespace ft {

// x_TD, weight_D -> y_TD.
at::Tensor RmsNorm(const at::Tensor& x_TD, const at::Tensor& weight_D,
                   double eps);

// The same without a graph; also returns 1 / rms of each row.
struct NormedRows {
  at::Tensor y_TD;
  at::Tensor rstd_T;
};
NormedRows RmsNormRows(const at::Tensor& x_TD, const at::Tensor& weight_D,
                       double eps);

// dx of RmsNormRows.
at::Tensor RmsNormRowsBackward(const at::Tensor& dy_TD, const at::Tensor& x_TD,
                               const at::Tensor& weight_D,
                               const at::Tensor& rstd_T);

}  // namespace ft
