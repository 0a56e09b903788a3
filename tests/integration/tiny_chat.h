// SPDX-License-Identifier: Apache-2.0
//
// The job of these tests: seconds long, with checkpoints and evaluations on the
// way, two lanes whatever the number of ranks.

#pragma once

#include <string>

#include "absl/strings/str_cat.h"

namespace ft::testing {

inline std::string TinyChat(int ranks, int steps,
                            const std::string& more = "") {
  return absl::StrCat(R"(
schema: ft.v1
name: tiny-chat
model: {base: tiny-chat}
data:
  train: [{path: counting.jsonl, format: openai}]
  validation: {share: 0.2}
  cutoff_len: 256
stage: sft
adaptation: {lora: {rank: 4, dropout: 0.05}}
schedule: {steps: )",
                      steps, R"(, learning_rate: 0.01, warmup_steps: 2}
batch: {sequences: 8, micro: 2}
determinism: {lanes: 2}
resources: {ranks: )",
                      ranks, R"(}
checkpointing: {every: {steps: 20}}
evaluation: {every: {steps: 50}}
)",
                      more);
}

}  // namespace ft::testing
