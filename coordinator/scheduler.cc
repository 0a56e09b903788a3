// SPDX-License-Identifier: Apache-2.0

#include "coordinator/scheduler.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ft {
namespace {

void TakeSlots(const Gang& gang, std::vector<WorkerOffer>& offers) {
  for (const v1::RankPlacement& rank : gang.placement.ranks()) {
    for (WorkerOffer& offer : offers) {
      if (offer.worker_id != rank.worker_id()) continue;
      for (WorkerOffer::SlotOffer& slot : offer.slots) {
        if (slot.slot == rank.slot()) slot.is_free = false;
      }
    }
  }
}

void Reserve(const GangDemand& demand, std::vector<WorkerOffer>& offers) {
  for (WorkerOffer& offer : offers) {
    if (!Matches(demand, offer)) continue;
    for (WorkerOffer::SlotOffer& slot : offer.slots) {
      if (!slot.held_for.empty()) continue;
      slot.held_for = std::string(demand.job_id);
      slot.is_reserved = true;
    }
  }
}

WaitReason WhyWaiting(const GangDemand& demand,
                      const std::vector<WorkerOffer>& offers, bool fits_empty) {
  size_t slots = 0;
  bool any_model = false;
  for (const WorkerOffer& offer : offers) {
    any_model |= offer.models.contains(demand.model);
    if (Matches(demand, offer)) slots += offer.slots.size();
  }
  if (offers.empty()) {
    return {"NO_WORKER", "no worker is attached and ready"};
  }
  if (!any_model) {
    return {"NO_MODEL",
            absl::StrCat("no ready worker holds the model ", demand.model)};
  }
  if (fits_empty) {
    return {"NOT_ENOUGH_FREE",
            absl::StrCat("not enough free slots for ", demand.ranks, " rank",
                         demand.ranks == 1 ? "" : "s")};
  }
  return {
      "NEVER_FITS",
      absl::StrCat("wants ", demand.ranks,
                   " slots; the ready workers that could run it have ", slots,
                   " (same model digest and ISA class); add workers, or "
                   "lower resources.ranks")};
}

// What decides whether a gang fits. Slots only get fewer in a cycle, so a shape
// that has failed is not tried again in it.
using Shape = std::tuple<int32_t, bool, absl::string_view, absl::string_view,
                         absl::string_view>;

Shape ShapeOf(const GangDemand& demand) {
  return {demand.ranks, demand.one_isa_class, demand.model, demand.model_digest,
          demand.isa_class};
}

std::set<std::string, std::less<>> JobsWithHeldSlots(
    const std::vector<WorkerOffer>& offers) {
  std::set<std::string, std::less<>> jobs;
  for (const WorkerOffer& offer : offers) {
    for (const WorkerOffer::SlotOffer& slot : offer.slots) {
      if (!slot.held_for.empty()) jobs.insert(slot.held_for);
    }
  }
  return jobs;
}

}  // namespace

Plan MakePlan(std::vector<GangDemand> waiting,
              std::vector<WorkerOffer> offers) {
  std::vector<GangDemand*> queue;
  queue.reserve(waiting.size());
  for (GangDemand& demand : waiting) queue.push_back(&demand);
  std::ranges::sort(queue, [](const GangDemand* a, const GangDemand* b) {
    return std::make_tuple(-a->priority, a->submit_seq) <
           std::make_tuple(-b->priority, b->submit_seq);
  });
  const std::set<std::string, std::less<>> holders = JobsWithHeldSlots(offers);
  std::map<Shape, std::shared_ptr<const WaitReason>> failed;
  Plan plan;
  plan.waiting.reserve(queue.size());
  const auto wait = [&plan](const GangDemand& demand,
                            std::shared_ptr<const WaitReason> why) {
    const auto ahead = static_cast<int32_t>(plan.waiting.size());
    plan.waiting.push_back({std::string(demand.job_id), std::move(why), ahead});
  };
  for (GangDemand* next : queue) {
    GangDemand& demand = *next;
    // Reserved for a job that waits for the slots which this one holds, the
    // rest of its gang would be kept from it, and each would wait for the
    // other.
    demand.passes_reservations = holders.contains(demand.job_id);
    const auto known = failed.find(ShapeOf(demand));
    if (known != failed.end() && !demand.passes_reservations) {
      wait(demand, known->second);
      continue;
    }
    std::optional<Gang> gang = FindGang(demand, offers);
    if (gang.has_value()) {
      TakeSlots(*gang, offers);
      plan.placements.push_back({std::string(demand.job_id), *std::move(gang)});
      continue;
    }
    const bool fits_empty = WouldFitEmpty(demand, offers);
    auto why = std::make_shared<const WaitReason>(
        WhyWaiting(demand, offers, fits_empty));
    failed.emplace(ShapeOf(demand), why);
    wait(demand, std::move(why));
    if (fits_empty) Reserve(demand, offers);
  }
  return plan;
}

}  // namespace ft
