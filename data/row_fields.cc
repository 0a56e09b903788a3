// SPDX-License-Identifier: Apache-2.0

#include "data/row_fields.h"

#include "absl/strings/str_cat.h"
#include "data/json_tree.h"

namespace ft::internal {

absl::Status BadField(absl::string_view key, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(key, ": ", what));
}

absl::StatusOr<std::string> TextField(const Json& row, const char* key) {
  const auto found = row.find(key);
  if (found == row.end() || found->is_null()) return "";
  if (!found->is_string()) return BadField(key, "must be a string");
  return found->get<std::string>();
}

void Say(Example& example, const char* role, Json content, bool may_learn) {
  example.messages.push_back(
      Json::object({{"role", role}, {"content", std::move(content)}}));
  example.may_learn.push_back(may_learn);
}

absl::StatusOr<Json> ToolsField(const Json& row) {
  const auto found = row.find("tools");
  if (found == row.end() || found->is_null()) return Json();
  Json tools = *found;
  if (tools.is_string()) {
    const std::string text = tools.get<std::string>();
    if (text.empty()) return Json();
    tools = ParseJsonText(text);
  }
  if (!tools.is_array()) return BadField("tools", "must be a JSON list");
  if (tools.empty()) return Json();
  for (Json& tool : tools) {
    if (tool.is_object() && !tool.contains("function")) {
      tool = Json::object({{"type", "function"}, {"function", Json(tool)}});
    }
    if (!tool.is_object() || !tool["function"].is_object() ||
        !tool["function"].contains("name") ||
        !tool["function"]["name"].is_string()) {
      return BadField("tools", "each must be a function with a name");
    }
  }
  return tools;
}

absl::StatusOr<Json> ToolCalls(Json calls) {
  constexpr absl::string_view kWhat =
      "a call must be {name, arguments}, or a list of them";
  if (calls.is_object()) calls = Json::array({calls});
  if (!calls.is_array() || calls.empty()) {
    return absl::InvalidArgumentError(kWhat);
  }
  for (Json& call : calls) {
    if (call.is_object() && !call.contains("function")) {
      call = Json::object({{"type", "function"}, {"function", Json(call)}});
    }
    if (!call.is_object() || !call["function"].is_object()) {
      return absl::InvalidArgumentError(kWhat);
    }
    Json& function = call["function"];
    if (!function.contains("name") || !function["name"].is_string() ||
        !function.contains("arguments")) {
      return absl::InvalidArgumentError(kWhat);
    }
    if (!call.contains("type")) call["type"] = "function";
    Json& arguments = function["arguments"];
    if (arguments.is_string()) {
      Json parsed = ParseJsonText(arguments.get_ref<const std::string&>());
      if (parsed.is_object()) arguments = std::move(parsed);
    }
  }
  return calls;
}

}  // namespace ft::internal
