// SPDX-License-Identifier: Apache-2.0

#include "data/row_formats.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace ft {
namespace {

absl::Status Bad(absl::string_view key, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(key, ": ", what));
}

// A string member; missing or null: "".
absl::StatusOr<std::string> Text(const Json& row, const char* key) {
  const auto found = row.find(key);
  if (found == row.end() || found->is_null()) return "";
  if (!found->is_string()) return Bad(key, "must be a string");
  return found->get<std::string>();
}

void Say(Example& example, const char* role, Json content,
         bool may_learn = true) {
  example.messages.push_back({{"role", role}, {"content", std::move(content)}});
  example.may_learn.push_back(may_learn);
}

// A list of tools, or a string that holds one as JSON.
absl::StatusOr<Json> Tools(const Json& row) {
  const auto found = row.find("tools");
  if (found == row.end() || found->is_null()) return Json();
  Json tools = *found;
  if (tools.is_string()) {
    const std::string text = tools.get<std::string>();
    if (text.empty()) return Json();
    tools = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  }
  if (!tools.is_array()) return Bad("tools", "must be a JSON list");
  if (tools.empty()) return Json();
  for (Json& tool : tools) {
    if (!tool.is_object()) return Bad("tools", "each must be an object");
    // A bare function is wrapped as templates expect it.
    if (!tool.contains("function")) {
      tool = Json{{"type", "function"}, {"function", tool}};
    }
  }
  return tools;
}

// One call or a list of calls, as {name, arguments}, in the structure that
// templates expect.
absl::StatusOr<Json> ToolCalls(const std::string& text) {
  Json calls = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (calls.is_object()) calls = Json::array({calls});
  if (!calls.is_array() || calls.empty()) {
    return Bad("function_call", "must be a JSON object or a list of them");
  }
  Json wrapped = Json::array();
  for (const Json& call : calls) {
    if (!call.is_object() || !call.contains("name") ||
        !call["name"].is_string() || !call.contains("arguments")) {
      return Bad("function_call", "each call needs name and arguments");
    }
    wrapped.push_back({{"type", "function"}, {"function", call}});
  }
  return wrapped;
}

}  // namespace

absl::StatusOr<Example> ExampleFromRow(RowFormat format, const Json& row) {
  if (!row.is_object()) {
    return absl::InvalidArgumentError("the row is no JSON object");
  }
  switch (format) {
    case RowFormat::kAlpaca:
      return FromAlpaca(row);
    case RowFormat::kSharegpt:
      return FromSharegpt(row);
    case RowFormat::kOpenai:
      return FromOpenai(row);
  }
  return absl::InternalError("no such format");
}

absl::StatusOr<Example> FromAlpaca(const Json& row) {
  FT_ASSIGN_OR_RETURN(const std::string instruction, Text(row, "instruction"));
  FT_ASSIGN_OR_RETURN(const std::string input, Text(row, "input"));
  FT_ASSIGN_OR_RETURN(const std::string output, Text(row, "output"));
  FT_ASSIGN_OR_RETURN(const std::string system, Text(row, "system"));
  if (instruction.empty() && input.empty()) {
    return Bad("instruction", "missing or empty, and so is input");
  }
  if (output.empty()) return Bad("output", "missing or empty");

  Example example;
  if (!system.empty()) Say(example, "system", system);
  const auto history = row.find("history");
  if (history != row.end() && !history->is_null()) {
    if (!history->is_array()) return Bad("history", "must be a list of pairs");
    for (const Json& turn : *history) {
      if (!turn.is_array() || turn.size() != 2 || !turn[0].is_string() ||
          !turn[1].is_string()) {
        return Bad("history", "each entry must be [question, answer]");
      }
      Say(example, "user", turn[0]);
      Say(example, "assistant", turn[1]);
    }
  }
  const char* const separator =
      instruction.empty() || input.empty() ? "" : "\n";
  Say(example, "user", absl::StrCat(instruction, separator, input));
  Say(example, "assistant", output);
  return example;
}

absl::StatusOr<Example> FromSharegpt(const Json& row) {
  const auto turns = row.find("conversations");
  if (turns == row.end() || !turns->is_array() || turns->empty()) {
    return Bad("conversations", "must be a list that is not empty");
  }
  Example example;
  FT_ASSIGN_OR_RETURN(example.tools, Tools(row));
  FT_ASSIGN_OR_RETURN(std::string system, Text(row, "system"));
  size_t first = 0;
  const auto from_of = [&](size_t i) -> std::string {
    const Json& turn = (*turns)[i];
    const auto from = turn.is_object() ? turn.find("from") : turn.end();
    return turn.is_object() && from != turn.end() && from->is_string()
               ? from->get<std::string>()
               : "";
  };
  if (from_of(0) == "system") {
    FT_ASSIGN_OR_RETURN(system, Text((*turns)[0], "value"));
    first = 1;
  }
  if (!system.empty()) Say(example, "system", system);
  for (size_t i = first; i < turns->size(); ++i) {
    const std::string from = from_of(i);
    const bool is_asking = from == "human" || from == "observation";
    const bool is_answering = from == "gpt" || from == "function_call";
    const std::string key = absl::StrCat("conversations[", i, "]");
    if (!is_asking && !is_answering) {
      return Bad(key, absl::StrCat("from \"", from,
                                   "\" is none of human, gpt, function_call, "
                                   "observation"));
    }
    if (is_asking != ((i - first) % 2 == 0)) {
      return Bad(key, absl::StrCat("\"", from,
                                   "\" is out of turn: human or observation "
                                   "and gpt or function_call alternate"));
    }
    FT_ASSIGN_OR_RETURN(const std::string value, Text((*turns)[i], "value"),
                        key);
    if (from == "human") {
      Say(example, "user", value);
    } else if (from == "observation") {
      Say(example, "tool", value);
    } else if (from == "gpt") {
      if (value.empty()) return Bad(key, "the answer is empty");
      Say(example, "assistant", value);
    } else {
      FT_ASSIGN_OR_RETURN(Json calls, ToolCalls(value), key);
      Say(example, "assistant", "");
      example.messages.back()["tool_calls"] = std::move(calls);
    }
  }
  if ((turns->size() - first) % 2 != 0) {
    return Bad("conversations", "the last turn is no answer");
  }
  return example;
}

absl::StatusOr<Example> FromOpenai(const Json& row) {
  const auto messages = row.find("messages");
  if (messages == row.end() || !messages->is_array() || messages->empty()) {
    return Bad("messages", "must be a list that is not empty");
  }
  Example example;
  FT_ASSIGN_OR_RETURN(example.tools, Tools(row));
  bool has_answer = false;
  for (size_t i = 0; i < messages->size(); ++i) {
    const std::string key = absl::StrCat("messages[", i, "]");
    Json message = (*messages)[i];
    if (!message.is_object()) return Bad(key, "must be an object");
    FT_ASSIGN_OR_RETURN(const std::string role, Text(message, "role"), key);
    if (role != "system" && role != "user" && role != "assistant" &&
        role != "tool" && role != "developer") {
      return Bad(key, absl::StrCat("role \"", role,
                                   "\" is none of system, developer, user, "
                                   "assistant, tool"));
    }
    bool may_learn = true;
    if (const auto weight = message.find("loss_weight");
        weight != message.end()) {
      if (!weight->is_number() || (*weight != 0 && *weight != 1)) {
        return Bad(key + ".loss_weight", "must be 0 or 1");
      }
      may_learn = *weight != 0;
      message.erase("loss_weight");
    }
    const bool has_calls =
        message.contains("tool_calls") && !message["tool_calls"].is_null();
    if (!message.contains("content") || message["content"].is_null()) {
      if (!has_calls) return Bad(key + ".content", "missing");
      message["content"] = "";
    }
    if (!message["content"].is_string()) {
      return Bad(key + ".content", "must be a string");
    }
    if (role == "assistant" && !has_calls &&
        message["content"].get<std::string>().empty()) {
      return Bad(key + ".content", "the answer is empty");
    }
    has_answer |= role == "assistant";
    example.messages.push_back(std::move(message));
    example.may_learn.push_back(may_learn);
  }
  if (!has_answer) return Bad("messages", "no assistant turn to learn from");
  return example;
}

}  // namespace ft
