// SPDX-License-Identifier: Apache-2.0

#include "coordinator/rendezvous.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace ft {

absl::StatusOr<std::vector<Rendezvous::Waiter>> Rendezvous::Set(
    const v1::RendezvousSet& set) {
  if (set.key().size() > kMaxKeyBytes || set.value().size() > kMaxValueBytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "rendezvous key of ", set.key().size(), " bytes with a value of ",
        set.value().size(), " bytes; the limits are ", kMaxKeyBytes, " and ",
        kMaxValueBytes));
  }
  Table& table = tables_[set.epoch()];
  if (table.values.size() >= kMaxKeys && !table.values.contains(set.key())) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", kMaxKeys, " rendezvous keys"));
  }
  const auto [entry, is_new] = table.values.emplace(set.key(), set.value());
  if (!is_new && entry->second != set.value()) {
    return absl::AlreadyExistsError(
        absl::StrCat("rendezvous key '", set.key(), "' has another value"));
  }
  const auto waiting = table.waiters.find(set.key());
  if (waiting == table.waiters.end()) return std::vector<Waiter>();
  std::vector<Waiter> waiters = std::move(waiting->second);
  table.waiters.erase(waiting);
  return waiters;
}

const std::string* Rendezvous::Get(const v1::RendezvousGet& get,
                                   const std::string& worker_id) {
  // Such a key is never set, so nobody need remember who waits for it.
  if (get.key().size() > kMaxKeyBytes) return nullptr;
  Table& table = tables_[get.epoch()];
  const auto entry = table.values.find(get.key());
  if (entry != table.values.end()) return &entry->second;
  if (table.waiters.size() >= kMaxKeys) return nullptr;
  std::vector<Waiter>& waiters = table.waiters[get.key()];
  const bool known = std::ranges::any_of(waiters, [&](const Waiter& waiter) {
    return waiter.worker_id == worker_id && waiter.rank == get.rank();
  });
  if (!known && waiters.size() < kMaxWaiters) {
    waiters.push_back({worker_id, get.rank()});
  }
  return nullptr;
}

}  // namespace ft
