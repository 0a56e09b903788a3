// SPDX-License-Identifier: Apache-2.0
//
// Rows to conversations: alpaca and sharegpt as LLaMA-Factory defines them,
// openai as the OpenAI fine-tuning API and LLaMA-Factory's typed parts do.

#pragma once

#include "absl/status/statusor.h"
#include "data/example.h"

namespace ft {

// INVALID_ARGUMENT: the row is not of the format; the message names the key.
absl::StatusOr<Example> ExampleFromRow(RowFormat format, const Json& row);

// {instruction, input, output, history: [[question, answer]], system}: the
// question is what is not empty of instruction and input, joined by a newline.
absl::StatusOr<Example> FromAlpaca(const Json& row);

// {conversations: [{from, value}], system, tools}: human (or user) and
// observation (or tool) at even places, gpt (or assistant) and function_call at
// odd ones; the first may be system. tools is a JSON text.
absl::StatusOr<Example> FromSharegpt(const Json& row);

// {messages: [{role, content, tool_calls, loss_weight, ...}], tools}: content
// is a string or a list of parts {type: text | reasoning | tool_call, value}.
absl::StatusOr<Example> FromOpenai(const Json& row);

}  // namespace ft
