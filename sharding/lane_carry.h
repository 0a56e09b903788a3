// SPDX-License-Identifier: Apache-2.0
//
// Adds up a rank's own lanes in the order of collective/tree.h, as they come:
// a binary counter of partial sums, floor(log2(lanes)) of them beside the
// running one. With 2^k lanes a rank the result is a subtree of the tree over
// all lanes, so the number of ranks does not change a bit.

#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "common/check.h"

namespace ft {

// Buffer: movable; `add(into, from)` does into = into + from.
template <typename Buffer, typename Add>
class LaneCarry {
 public:
  explicit LaneCarry(Add add) : add_(std::move(add)) {}

  // The next lane's values.
  void Push(Buffer values) {
    int level = 0;
    while (!stack_.empty() && stack_.back().level == level) {
      add_(stack_.back().values, values);
      values = std::move(stack_.back().values);
      stack_.pop_back();
      ++level;
    }
    stack_.push_back({level, std::move(values)});
  }

  // The sum of all lanes; begins anew. REQUIRES: something was pushed
  Buffer Take() {
    FT_CHECK(!stack_.empty());
    Buffer sum = std::move(stack_.back().values);
    stack_.pop_back();
    while (!stack_.empty()) {
      add_(stack_.back().values, sum);
      sum = std::move(stack_.back().values);
      stack_.pop_back();
    }
    return sum;
  }

  // Partial sums held now.
  size_t size() const { return stack_.size(); }

 private:
  struct Partial {
    int level;
    Buffer values;
  };
  Add add_;
  std::vector<Partial> stack_;
};

}  // namespace ft
