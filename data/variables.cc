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

// A value is not searched again.
void FillText(const std::map<std::string, std::string>& variables,
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
      ++at;
    }
  }
}

void FillValue(const std::map<std::string, std::string>& variables, Json& value,
               std::set<std::string>& unfilled) {
  if (value.is_string()) {
    FillText(variables, value.get_ref<std::string&>(), unfilled);
  } else if (value.is_structured()) {
    for (Json& member : value) FillValue(variables, member, unfilled);
  }
}

}  // namespace

std::set<std::string> FillVariables(
    const std::map<std::string, std::string>& variables, Example& example) {
  std::set<std::string> unfilled;
  FillValue(variables, example.messages, unfilled);
  return unfilled;
}

}  // namespace ft
