// SPDX-License-Identifier: Apache-2.0

#include "jobspec/violations.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace ft {
namespace {

// A violation quotes what somebody wrote: it stays on its line and does nothing
// to a terminal.
std::string Printable(absl::string_view text) {
  std::string printable;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7F) {
      absl::StrAppend(&printable, "\\x", absl::Hex(c, absl::kZeroPad2));
    } else {
      printable += c;
    }
  }
  return printable;
}

std::string LineOf(const Violation& violation, absl::string_view file) {
  std::string line(file);
  if (violation.line > 0) absl::StrAppend(&line, ":", violation.line);
  if (!violation.field.empty()) absl::StrAppend(&line, ": ", violation.field);
  absl::StrAppend(&line, ": ", violation.what);
  return line;
}

}  // namespace

void Violations::Add(absl::string_view field, absl::string_view what,
                     int line) {
  list_.push_back({Printable(field), Printable(what), line});
}

void Violations::AddNotYet(absl::string_view field, absl::string_view what,
                           int line) {
  Add(field, what, line);
  list_.back().is_not_yet = true;
}

void Violations::Locate(const std::map<std::string, int>& lines) {
  for (Violation& violation : list_) {
    std::string path = violation.field;
    while (violation.line == 0 && !path.empty()) {
      const auto found = lines.find(path);
      if (found != lines.end()) violation.line = found->second;
      const size_t cut = path.find_last_of(".[");
      path.resize(cut == std::string::npos ? 0 : cut);
    }
  }
  std::stable_sort(
      list_.begin(), list_.end(),
      [](const Violation& a, const Violation& b) { return a.line < b.line; });
}

std::string Violations::Text(absl::string_view file) const {
  std::string text;
  for (const Violation& violation : list_) {
    absl::StrAppend(&text, text.empty() ? "" : "\n", LineOf(violation, file));
  }
  return text;
}

std::vector<std::string> Violations::TakeNotYet(absl::string_view file) {
  std::vector<std::string> lines;
  for (const Violation& violation : list_) {
    if (violation.is_not_yet) lines.push_back(LineOf(violation, file));
  }
  std::erase_if(list_, [](const Violation& each) { return each.is_not_yet; });
  return lines;
}

absl::Status Violations::ToStatus(absl::string_view file) const {
  if (empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(Text(file));
}

}  // namespace ft
