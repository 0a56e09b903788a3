// SPDX-License-Identifier: Apache-2.0

#include "data/variables.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace ft {
namespace {

bool IsWord(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_';
  });
}

void Fill(const std::map<std::string, std::string>& variables,
          std::string& text, std::set<std::string>& unfilled) {
  size_t at = 0;
  while ((at = text.find("{{", at)) != std::string::npos) {
    const size_t end = text.find("}}", at);
    if (end == std::string::npos) return;
    const std::string word = text.substr(at + 2, end - at - 2);
    const auto value = variables.find(word);
    if (value != variables.end()) {
      text.replace(at, end + 2 - at, value->second);
      at += value->second.size();
    } else {
      if (IsWord(word)) unfilled.insert(word);
      at += 2;
    }
  }
}

}  // namespace

std::set<std::string> FillVariables(
    const std::map<std::string, std::string>& variables, Example& example) {
  std::set<std::string> unfilled;
  for (Json& message : example.messages) {
    std::string text = message["content"].get<std::string>();
    Fill(variables, text, unfilled);
    message["content"] = std::move(text);
  }
  return unfilled;
}

}  // namespace ft
