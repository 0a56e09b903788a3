// SPDX-License-Identifier: Apache-2.0
//
// A row of a data set as a conversation, and what it becomes: tokens with a
// mark on those that are learned.

#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace ft {

// Keeps the order of keys: a template may print a message's members.
using Json = nlohmann::ordered_json;

enum class RowFormat { kAlpaca, kSharegpt, kOpenai };

struct Example {
  // [{role, content, tool_calls...}]: what the chat template gets. The role is
  // one of system, developer, user, assistant, tool; content is a string.
  Json messages = Json::array();
  // [{type: function, function: {...}}], or null.
  Json tools;
  // Whether the turn may be learned (loss_weight above 0); one per message.
  std::vector<bool> may_learn;
};

// The label of token t is token t + 1, and it counts iff token t + 1 is
// learned.
struct TokenizedExample {
  std::vector<int32_t> ids;
  std::vector<bool> learned;
  // Where it comes from: an index into DatasetOptions::files, and the row as
  // BadRow counts it. Examples that one row was split into share both.
  int32_t file = 0;
  int64_t row = 0;

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
  // Tokens whose label is learned.
  int64_t num_targets() const;
};

// What is wrong with a row.
struct BadRow {
  std::string file;
  // From 1; of JSON lines the number of the line. 0: the file itself.
  int64_t row = 0;
  int64_t line = 0;    // Where the row begins, or the fault lies. 0: unknown.
  int64_t column = 0;  // In bytes, from 1. 0: the row as a whole.
  std::string reason;

  // "rows.json:12:7: row 3: ...", as far as it is known.
  std::string ToString() const;
};

}  // namespace ft
