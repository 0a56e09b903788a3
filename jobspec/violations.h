// SPDX-License-Identifier: Apache-2.0
//
// What is wrong with a job file: everything at once, each with its place and a
// remedy.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ft {

struct Violation {
  std::string field;  // "adaptation.lora.rank"; empty: the file itself.
  std::string what;   // "0 is not in [1, 1024]; write ..."
  int line = 0;       // From 1; 0: not known.
  // Nothing is wrong with it, but this version cannot run it.
  bool is_not_yet = false;
};

class Violations {
 public:
  void Add(absl::string_view field, absl::string_view what, int line = 0);
  void AddNotYet(absl::string_view field, absl::string_view what, int line = 0);

  bool empty() const { return list_.empty(); }
  const std::vector<Violation>& list() const { return list_; }

  // Gives each violation without a line that of its field, or of the nearest
  // field around it; then sorts by line.
  void Locate(const std::map<std::string, int>& lines);

  // One line each, "job.yaml:14: adaptation.lora.rank: 0 is not in ...".
  std::string Text(absl::string_view file) const;

  // Removes those that are only not yet, and returns a line for each.
  std::vector<std::string> TakeNotYet(absl::string_view file);

  // INVALID_ARGUMENT with Text(file), or OK if there are none.
  absl::Status ToStatus(absl::string_view file) const;

 private:
  std::vector<Violation> list_;
};

}  // namespace ft
