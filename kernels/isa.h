// SPDX-License-Identifier: Apache-2.0
//
// Which instruction set the fast kernels use. Their bits do not depend on it:
// every sum has a fixed order of 16 lanes, and no multiply-add is fused. The
// choice binds speed here, and the bits of the BLAS elsewhere.

#pragma once

#include "absl/strings/string_view.h"

namespace ft {

enum class Isa { kPortable, kAvx2, kAvx512 };

// The best one this processor has.
Isa BestIsa();

// "avx512", "avx2" or "baseline".
absl::string_view IsaName(Isa isa);

// Binds the kernels to `isa`, or to the best below it that the processor has.
// Call it before threads use them. Default: BestIsa().
void SetKernelIsa(Isa isa);
Isa KernelIsa();

}  // namespace ft
