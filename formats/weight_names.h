// SPDX-License-Identifier: Apache-2.0
//
// Names of the same tensors in GGUF files and in Hugging Face ones, for GGUF's
// architecture `llama`, and the order of the rows of q and k: llama.cpp rotates
// neighbouring pairs, Hugging Face the two halves of a head.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "formats/model_spec.h"

namespace ft {

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight". Nothing if
// the name is none of a llama.
std::optional<std::string> HfNameOfGguf(absl::string_view gguf_name);

// The way back.
std::optional<std::string> GgufNameOfHf(absl::string_view hf_name);

// How many heads the rows of the tensor are divided into, if GGUF stores them
// in another order (q and k); 0 if the order is the same.
int64_t PermutedHeads(const ModelSpec& spec, absl::string_view hf_name);

// The row of the GGUF tensor that is row `hf_row` of the Hugging Face one:
// (h, half, i) comes from (h, i, half).
// REQUIRES: rows is a multiple of 2 * heads, 0 <= hf_row < rows
int64_t GgufRowOf(int64_t hf_row, int64_t rows, int64_t heads);

}  // namespace ft
