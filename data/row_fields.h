// SPDX-License-Identifier: Apache-2.0
//
// What the formats of rows share: reading members, adding turns. Only data/
// includes this file.

#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/example.h"

namespace ft::internal {

// INVALID_ARGUMENT, "`key`: `what`".
absl::Status BadField(absl::string_view key, absl::string_view what);

// A string member; missing or null: "".
absl::StatusOr<std::string> TextField(const Json& row, const char* key);

// Adds a turn.
void Say(Example& example, const char* role, Json content,
         bool may_learn = true);

// The member "tools": a list, or a string that holds one as JSON; a bare
// function is wrapped as templates expect it. Null: none.
absl::StatusOr<Json> ToolsField(const Json& row);

// One call or a list of calls, each {name, arguments} or {type, function:
// {name, arguments}}, as templates expect them: the latter, with arguments that
// are a structure and no text.
absl::StatusOr<Json> ToolCalls(Json calls);

}  // namespace ft::internal
