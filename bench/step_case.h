// SPDX-License-Identifier: Apache-2.0
//
// The cases that both sides train on: token ids, what of them is learned, and
// the adapter's first values, as files that the peer's script reads too.
//
//   DIR/case1.safetensors   ids [N] i64, learned [N] u8, cu_seqlens [rows + 1]
//   DIR/case2.safetensors   i64; metadata: sequences, the rows of a step
//   DIR/case3.safetensors
//   DIR/adapter/            PEFT's format, B = 0

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/example.h"

namespace ft::bench {

inline constexpr int64_t kLoraRank = 8;
inline constexpr double kLoraAlpha = 16;
inline constexpr int kCases = 3;

struct StepCase {
  std::vector<TokenizedExample> rows;
  int64_t sequences = 0;  // The rows of a step.
};

// Tokenizes the texts of `data` (bench/data) with the model's own tokenizer and
// template, draws the adapter, and writes all of it below `out`.
absl::Status PrepareCases(const std::string& model_dir, const std::string& data,
                          const std::string& out);

// Reads case `number` of kCases.
absl::StatusOr<StepCase> ReadCase(const std::string& dir, int number);

}  // namespace ft::bench
