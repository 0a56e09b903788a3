// SPDX-License-Identifier: Apache-2.0

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "data/json_tree.h"
#include "data/row_fields.h"
#include "data/row_formats.h"

namespace ft {
namespace {

using internal::BadField;
using internal::TextField;

// Typed parts become what templates know: one text, reasoning_content and
// tool_calls.
absl::Status JoinParts(Json& message) {
  std::string text, reasoning;
  Json calls = Json::array();
  for (const Json& part : message["content"]) {
    if (!part.is_object()) return BadField("content", "a part is no object");
    const Json type = part.value("type", Json());
    // OpenAI names a text part's text "text", LLaMA-Factory every value
    // "value".
    const Json value =
        part.contains("value") ? part["value"] : part.value("text", Json());
    if ((type == "text" || type == "reasoning") && value.is_string()) {
      (type == "text" ? text : reasoning) += value.get<std::string>();
    } else if (type == "tool_call") {
      FT_ASSIGN_OR_RETURN(
          const Json more,
          internal::ToolCalls(
              value.is_string()
                  ? ParseJsonText(value.get_ref<const std::string&>())
                  : value),
          "content");
      calls.insert(calls.end(), more.begin(), more.end());
    } else {
      return BadField("content",
                      "a part must be a text, reasoning or tool_call");
    }
  }
  message["content"] = text;
  if (!reasoning.empty()) message["reasoning_content"] = reasoning;
  if (!calls.empty()) message["tool_calls"] = std::move(calls);
  return absl::OkStatus();
}

absl::StatusOr<bool> TakeLossWeight(Json& message) {
  const auto weight = message.find("loss_weight");
  if (weight == message.end()) return true;
  const bool may_learn = *weight == 1;
  if (!may_learn && *weight != 0) {
    return BadField("loss_weight", "must be 0 or 1");
  }
  message.erase("loss_weight");
  return may_learn;
}

absl::Status CompleteContent(Json& message) {
  const auto calls = message.find("tool_calls");
  if (calls != message.end() && calls->is_null()) {
    message.erase("tool_calls");
  } else if (calls != message.end()) {
    FT_ASSIGN_OR_RETURN(*calls, internal::ToolCalls(*calls), "tool_calls");
  }
  const auto content = message.find("content");
  if (content != message.end() && content->is_array()) {
    FT_RETURN_IF_ERROR(JoinParts(message));
  }
  const bool has_calls = message.contains("tool_calls");
  if (!message.contains("content") || message["content"].is_null()) {
    if (!has_calls) return BadField("content", "missing");
    message["content"] = "";
  }
  if (!message["content"].is_string()) {
    return BadField("content", "must be a string or a list of parts");
  }
  if (message["role"] == "assistant" && !has_calls &&
      message["content"].get_ref<const std::string&>().empty()) {
    return BadField("content", "the answer is empty");
  }
  if (message["role"] != "assistant" && has_calls) {
    return BadField("tool_calls", "only an assistant calls tools");
  }
  return absl::OkStatus();
}

absl::Status AddMessage(Json message, Example& example) {
  if (!message.is_object()) {
    return absl::InvalidArgumentError("must be an object");
  }
  FT_ASSIGN_OR_RETURN(const std::string role, TextField(message, "role"));
  if (role == "observation") {
    message["role"] = "tool";
  } else if (role != "system" && role != "user" && role != "assistant" &&
             role != "tool" && role != "developer") {
    return BadField("role", absl::StrCat("\"", role,
                                         "\" is none of system, developer, "
                                         "user, assistant, tool"));
  }
  FT_ASSIGN_OR_RETURN(const bool may_learn, TakeLossWeight(message));
  FT_RETURN_IF_ERROR(CompleteContent(message));
  if (message["role"] == "tool") {
    const bool has_call = !example.messages.empty() &&
                          (example.messages.back()["role"] == "tool" ||
                           example.messages.back().contains("tool_calls"));
    if (!has_call) {
      return BadField("role",
                      "a tool answers a call, and there is none before");
    }
  }
  example.messages.push_back(std::move(message));
  example.may_learn.push_back(may_learn);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Example> FromOpenai(const Json& row) {
  const auto messages = row.find("messages");
  if (messages == row.end() || !messages->is_array() || messages->empty()) {
    return BadField("messages", "must be a list that is not empty");
  }
  Example example;
  FT_ASSIGN_OR_RETURN(example.tools, internal::ToolsField(row));
  bool has_answer = false;
  for (size_t i = 0; i < messages->size(); ++i) {
    FT_RETURN_IF_ERROR(AddMessage((*messages)[i], example), "messages[", i,
                       "]");
    has_answer |= example.messages.back()["role"] == "assistant";
  }
  if (!has_answer) {
    return BadField("messages", "no assistant turn to learn from");
  }
  return example;
}

}  // namespace ft
