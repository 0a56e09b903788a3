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
  // [{role, content, tool_calls...}]: what the chat template gets.
  Json messages = Json::array();
  // [{type: function, function: {...}}], or null.
  Json tools;
  // Whether the turn may be learned (loss_weight above 0); one per message.
  std::vector<bool> may_learn;
  // Where it comes from: "file.json", row from 1.
  std::string file;
  int64_t row = 0;
};

// The label of token t is token t + 1, and it counts iff token t + 1 is
// learned.
struct TokenizedExample {
  std::vector<int32_t> ids;
  std::vector<bool> learned;

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
  // Tokens whose label is learned.
  int64_t num_targets() const;
};

// What is wrong with a row.
struct BadRow {
  std::string file;
  int64_t row = 0;  // From 1; 0: the file itself.
  std::string reason;

  std::string ToString() const;
};

}  // namespace ft
