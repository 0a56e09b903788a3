// SPDX-License-Identifier: Apache-2.0
//
// YAML to a tree with line numbers: the wall around yaml-cpp, whose exceptions
// end here. Bounded: 256 KiB, 32 levels, 10,000 nodes; anchors, aliases, tags,
// merge keys and duplicate keys are errors, each with its line.

#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "jobspec/violations.h"

namespace ft {

struct YamlField;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  int line = 0;        // From 1.
  std::string scalar;  // kScalar
  bool is_quoted = false;
  std::vector<YamlNode> items;    // kList
  std::vector<YamlField> fields;  // kMap, as written
};

struct YamlField {
  std::string key;
  YamlNode value;
};

inline constexpr size_t kMaxYamlBytes = 256 << 10;
inline constexpr int kMaxYamlDepth = 32;
inline constexpr int kMaxYamlNodes = 10'000;

// The document in `text`; what is wrong goes to `violations`, and then the tree
// may be incomplete.
YamlNode ReadYaml(absl::string_view text, Violations& violations);

}  // namespace ft
