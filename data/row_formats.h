// SPDX-License-Identifier: Apache-2.0
//
// Rows to conversations: alpaca, sharegpt and openai, as LLaMA-Factory and the
// OpenAI fine-tuning API define them (docs/job_yaml.md, data).

#pragma once

#include "absl/status/statusor.h"
#include "data/example.h"

namespace ft {

// INVALID_ARGUMENT: the row is not of the format; the message names the key.
absl::StatusOr<Example> ExampleFromRow(RowFormat format, const Json& row);

// {instruction, input, output, history: [[question, answer]], system}.
absl::StatusOr<Example> FromAlpaca(const Json& row);

// {conversations: [{from, value}], system, tools}: human and observation at
// even places, gpt and function_call at odd ones.
absl::StatusOr<Example> FromSharegpt(const Json& row);

// {messages: [{role, content, tool_calls, loss_weight}], tools}.
absl::StatusOr<Example> FromOpenai(const Json& row);

}  // namespace ft
