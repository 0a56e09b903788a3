// SPDX-License-Identifier: Apache-2.0

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "data/json_tree.h"
#include "data/row_fields.h"
#include "data/row_formats.h"

namespace ft {
namespace {

using internal::BadField;
using internal::Say;
using internal::TextField;

enum class Speaker { kHuman, kObservation, kGpt, kFunctionCall, kUnknown };

Speaker SpeakerOf(const Json& turn) {
  if (!turn.is_object()) return Speaker::kUnknown;
  const Json from = turn.value("from", Json());
  if (from == "human" || from == "user") return Speaker::kHuman;
  if (from == "observation" || from == "tool") return Speaker::kObservation;
  if (from == "gpt" || from == "assistant") return Speaker::kGpt;
  if (from == "function_call") return Speaker::kFunctionCall;
  return Speaker::kUnknown;
}

absl::Status AddTurn(Speaker speaker, const Json& turn, Example& example) {
  FT_ASSIGN_OR_RETURN(const std::string value, TextField(turn, "value"));
  switch (speaker) {
    case Speaker::kHuman:
      Say(example, "user", value);
      break;
    case Speaker::kObservation:
      Say(example, "tool", value);
      break;
    case Speaker::kGpt:
      if (value.empty()) return BadField("value", "the answer is empty");
      Say(example, "assistant", value);
      break;
    case Speaker::kFunctionCall: {
      FT_ASSIGN_OR_RETURN(Json calls, internal::ToolCalls(ParseJsonText(value)),
                          "value");
      Say(example, "assistant", "");
      example.messages.back()["tool_calls"] = std::move(calls);
      break;
    }
    case Speaker::kUnknown:
      return BadField("from",
                      "must be human, gpt, function_call or observation");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Example> FromSharegpt(const Json& row) {
  const auto turns = row.find("conversations");
  if (turns == row.end() || !turns->is_array() || turns->empty()) {
    return BadField("conversations", "must be a list that is not empty");
  }
  Example example;
  FT_ASSIGN_OR_RETURN(example.tools, internal::ToolsField(row));
  FT_ASSIGN_OR_RETURN(std::string system, TextField(row, "system"));
  size_t first = 0;
  const Json& opening = (*turns)[0];
  if (opening.is_object() && opening.value("from", Json()) == "system") {
    FT_ASSIGN_OR_RETURN(system, TextField(opening, "value"),
                        "conversations[0]");
    first = 1;
  }
  if (!system.empty()) Say(example, "system", system);
  for (size_t i = first; i < turns->size(); ++i) {
    const std::string key = absl::StrCat("conversations[", i, "]");
    const Speaker speaker = SpeakerOf((*turns)[i]);
    const bool is_asking =
        speaker == Speaker::kHuman || speaker == Speaker::kObservation;
    FT_RETURN_IF_ERROR(AddTurn(speaker, (*turns)[i], example), key);
    if (is_asking != ((i - first) % 2 == 0)) {
      return BadField(key,
                      "out of turn: human or observation, and gpt or "
                      "function_call, alternate");
    }
  }
  if (example.messages.empty() ||
      example.messages.back()["role"] != "assistant") {
    return BadField("conversations", "the last turn is no answer");
  }
  return example;
}

}  // namespace ft
