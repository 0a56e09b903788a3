// SPDX-License-Identifier: Apache-2.0
//
// Adds up a rank's own lanes in the order of collective/tree.h, as they come: a
// binary counter of partial sums. With 2^k lanes a rank the result is a subtree
// of the tree over all lanes, so the number of ranks does not change a bit.
//
// The last lane of a round stays where it is and takes the sums in, so that L
// lanes need floor(log2(L)) partial sums beside it, and one lane none.

#pragma once

#include <utility>
#include <vector>

namespace ft {

// `Ops` has Copy(Buffer& into, const Buffer& from), where `into` may be new,
// and Add(Buffer& into, const Buffer& from).
template <typename Buffer, typename Ops>
class LaneCarry {
 public:
  // Takes the values of a lane that is not the last of its round.
  void Push(const Buffer& lane) {
    if (partials_.empty() || partials_.back().level != 0) {
      partials_.push_back({.level = 0, .sum = TakeSpare()});
      Ops::Copy(partials_.back().sum, lane);
      return;
    }
    Ops::Add(partials_.back().sum, lane);
    ++partials_.back().level;
    while (partials_.size() >= 2 &&
           partials_[partials_.size() - 2].level == partials_.back().level) {
      Buffer right = std::move(partials_.back().sum);
      partials_.pop_back();
      Ops::Add(partials_.back().sum, right);
      ++partials_.back().level;
      spares_.push_back(std::move(right));
    }
  }

  // Makes `last`, the values of the last lane, the sum of all; begins anew.
  void AddTo(Buffer& last) {
    for (; !partials_.empty(); partials_.pop_back()) {
      Ops::Add(last, partials_.back().sum);
      spares_.push_back(std::move(partials_.back().sum));
    }
  }

  // Forgets the lanes pushed.
  void Drop() {
    for (; !partials_.empty(); partials_.pop_back()) {
      spares_.push_back(std::move(partials_.back().sum));
    }
  }

  // Buffers held, in use or spare.
  size_t buffers() const { return partials_.size() + spares_.size(); }

 private:
  struct Partial {
    int level;
    Buffer sum;  // Of 2^level lanes.
  };

  Buffer TakeSpare() {
    if (spares_.empty()) return Buffer();
    Buffer spare = std::move(spares_.back());
    spares_.pop_back();
    return spare;
  }

  std::vector<Partial> partials_;
  std::vector<Buffer> spares_;
};

}  // namespace ft
