// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU (arXiv:2002.05202), with s = 1 / (1 + exp(-gate)):
//
//   out = gate s up
//   dup = dout gate s,  dgate = dout up s (1 + gate (1 - s))
//
// The fast form's exp is a polynomial within 2 ulp.

#pragma once

#include <span>

namespace ft {

// All spans have one size. out may be gate or up.
void SwigluForward(std::span<const float> gate, std::span<const float> up,
                   std::span<float> out);
void SwigluForwardReference(std::span<const float> gate,
                            std::span<const float> up, std::span<float> out);

// Overwrites gate with dgate and up with dup, and writes the product of the
// forward pass once more to `out` (LoRA's down projection needs it). out may
// be dout.
void SwigluBackwardInPlace(std::span<const float> dout, std::span<float> gate,
                           std::span<float> up, std::span<float> out);
void SwigluBackwardInPlaceReference(std::span<const float> dout,
                                    std::span<float> gate, std::span<float> up,
                                    std::span<float> out);

}  // namespace ft
