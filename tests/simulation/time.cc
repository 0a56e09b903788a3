// SPDX-License-Identifier: Apache-2.0
//
// Virtual time and chance of a simulation.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/simulation/world.h"

namespace ft::testing {
namespace {

constexpr size_t kHistory = 400;

bool IsLater(const auto& a, const auto& b) { return a < b; }

}  // namespace

void World::At(absl::Time when, std::function<void()> what) {
  events_.push_back({std::max(when, now_), ++event_seq_, std::move(what)});
  std::ranges::push_heap(events_, IsLater<Event, Event>);
}

void World::RunUntil(absl::Time end) {
  while (!events_.empty() && rules_.violation().empty()) {
    if (events_.front().when > end) break;
    std::ranges::pop_heap(events_, IsLater<Event, Event>);
    Event event = std::move(events_.back());
    events_.pop_back();
    now_ = event.when;
    ++report_.events;
    event.what();
  }
  if (rules_.violation().empty()) now_ = end;
}

int World::Roll(int sides) {
  return static_cast<int>(random_() % static_cast<uint64_t>(sides));
}

bool World::Chance(double share) {
  return share > 0 && static_cast<double>(random_() >> 11) * 0x1.0p-53 < share;
}

absl::Duration World::Between(absl::Duration least, absl::Duration most) {
  const int64_t span = absl::ToInt64Microseconds(most - least);
  if (span <= 0) return least;
  return least + absl::Microseconds(static_cast<int64_t>(
                     random_() % static_cast<uint64_t>(span)));
}

void World::Note(const std::string& what) {
  if (!options_.keeps_history) return;
  history_.push_back(
      absl::StrFormat("%9.3f  %s", absl::ToDoubleSeconds(now_ - begin_), what));
  if (history_.size() > kHistory) history_.pop_front();
}

}  // namespace ft::testing
