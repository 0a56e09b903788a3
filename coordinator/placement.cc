// SPDX-License-Identifier: Apache-2.0

#include "coordinator/placement.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace ft {
namespace {

// Workers whose results are the same to the bit.
struct Bucket {
  std::string isa_class;
  std::string model_digest;
  std::vector<const WorkerOffer*> offers;
};

std::vector<int32_t> FreeSlots(const GangDemand& demand,
                               const WorkerOffer& offer) {
  std::vector<int32_t> free;
  for (const WorkerOffer::SlotOffer& slot : offer.slots) {
    if (!slot.is_free) continue;
    const bool is_open = slot.held_for.empty() ||
                         slot.held_for == demand.job_id ||
                         (slot.is_reserved && demand.passes_reservations);
    if (!is_open) continue;
    free.push_back(slot.slot);
  }
  return free;
}

bool HoldsFor(const GangDemand& demand, const WorkerOffer& offer) {
  return std::ranges::any_of(offer.slots, [&](const auto& slot) {
    return slot.held_for == demand.job_id;
  });
}

std::vector<Bucket> Buckets(const GangDemand& demand,
                            const std::vector<WorkerOffer>& offers) {
  std::map<std::pair<std::string, std::string>, Bucket> buckets;
  for (const WorkerOffer& offer : offers) {
    if (!Matches(demand, offer)) continue;
    const std::string isa = demand.one_isa_class ? offer.isa_class : "";
    const std::string& digest = offer.models.find(demand.model)->second;
    Bucket& bucket = buckets[{isa, digest}];
    bucket.isa_class = offer.isa_class;
    bucket.model_digest = digest;
    bucket.offers.push_back(&offer);
  }
  std::vector<Bucket> all;
  for (auto& [key, bucket] : buckets) all.push_back(std::move(bucket));
  return all;
}

// The gang in one bucket; workers in the order: not to be avoided, slots held
// for this job, most free slots (fewest workers), id.
std::optional<Gang> FillFrom(const GangDemand& demand, const Bucket& bucket,
                             bool may_use_avoided) {
  struct Room {
    bool avoided;
    bool held;
    std::vector<int32_t> slots;
    const WorkerOffer* offer;
  };
  std::vector<Room> rooms;
  for (const WorkerOffer* offer : bucket.offers) {
    const bool avoided = demand.avoid_workers.contains(offer->worker_id);
    if (avoided && !may_use_avoided) continue;
    rooms.push_back(
        {avoided, HoldsFor(demand, *offer), FreeSlots(demand, *offer), offer});
  }
  std::ranges::sort(rooms, [](const Room& a, const Room& b) {
    return std::make_tuple(a.avoided, !a.held, b.slots.size(),
                           a.offer->worker_id) <
           std::make_tuple(b.avoided, !b.held, a.slots.size(),
                           b.offer->worker_id);
  });

  // Best fit: the smallest single worker that takes all that is left.
  Gang gang{.isa_class = bucket.isa_class, .model_digest = bucket.model_digest};
  int32_t left = demand.ranks;
  for (size_t i = 0; i < rooms.size() && left > 0; ++i) {
    const Room* room = &rooms[i];
    if (!room->held) {
      for (size_t j = i + 1; j < rooms.size(); ++j) {
        if (rooms[j].avoided == room->avoided && !rooms[j].held &&
            std::cmp_greater_equal(rooms[j].slots.size(), left) &&
            rooms[j].slots.size() < room->slots.size()) {
          room = &rooms[j];
        }
      }
    }
    for (const int32_t slot : room->slots) {
      if (left == 0) break;
      v1::RankPlacement& rank = *gang.placement.add_ranks();
      rank.set_rank(demand.ranks - left);
      rank.set_worker_id(room->offer->worker_id);
      rank.set_slot(slot);
      --left;
    }
  }
  if (left > 0) return std::nullopt;
  return gang;
}

}  // namespace

bool Matches(const GangDemand& demand, const WorkerOffer& offer) {
  const auto model = offer.models.find(demand.model);
  if (model == offer.models.end()) return false;
  if (!demand.model_digest.empty() && model->second != demand.model_digest) {
    return false;
  }
  if (demand.one_isa_class && !demand.isa_class.empty() &&
      offer.isa_class != demand.isa_class) {
    return false;
  }
  return true;
}

std::optional<Gang> FindGang(const GangDemand& demand,
                             const std::vector<WorkerOffer>& offers) {
  const std::vector<Bucket> buckets = Buckets(demand, offers);
  for (const bool may_use_avoided : {false, true}) {
    std::optional<Gang> best;
    size_t best_workers = 0;
    for (const Bucket& bucket : buckets) {
      std::optional<Gang> gang = FillFrom(demand, bucket, may_use_avoided);
      if (!gang.has_value()) continue;
      std::set<std::string> workers;
      for (const v1::RankPlacement& rank : gang->placement.ranks()) {
        workers.insert(rank.worker_id());
      }
      if (!best.has_value() || workers.size() < best_workers) {
        best_workers = workers.size();
        best = std::move(gang);
      }
    }
    if (best.has_value()) return best;
    if (demand.avoid_workers.empty()) break;
  }
  return std::nullopt;
}

void KeepRanks(const v1::Placement& before, v1::Placement& placement) {
  std::map<std::string, std::vector<int32_t>> slots;
  for (const v1::RankPlacement& rank : placement.ranks()) {
    slots[rank.worker_id()].push_back(rank.slot());
  }
  std::map<std::string, size_t> taken;
  v1::Placement kept = before;
  for (v1::RankPlacement& rank : *kept.mutable_ranks()) {
    const auto free = slots.find(rank.worker_id());
    size_t& next = taken[rank.worker_id()];
    if (free == slots.end() || next == free->second.size()) return;
    rank.set_slot(free->second[next++]);
  }
  if (kept.ranks_size() == placement.ranks_size()) placement = std::move(kept);
}

bool WouldFitEmpty(const GangDemand& demand,
                   const std::vector<WorkerOffer>& offers) {
  for (const Bucket& bucket : Buckets(demand, offers)) {
    size_t slots = 0;
    for (const WorkerOffer* offer : bucket.offers) slots += offer->slots.size();
    if (std::cmp_greater_equal(slots, demand.ranks)) return true;
  }
  return false;
}

}  // namespace ft
