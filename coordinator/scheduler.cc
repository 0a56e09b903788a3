// SPDX-License-Identifier: Apache-2.0

#include "coordinator/scheduler.h"

#include <algorithm>
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
      slot.held_for = demand.job_id;
      slot.is_reserved = true;
    }
  }
}

Waiting WhyWaiting(const GangDemand& demand,
                   const std::vector<WorkerOffer>& offers, bool fits_empty) {
  Waiting waiting{.job_id = demand.job_id};
  size_t slots = 0;
  bool any_model = false;
  for (const WorkerOffer& offer : offers) {
    any_model |= offer.models.contains(demand.model);
    if (Matches(demand, offer)) slots += offer.slots.size();
  }
  if (offers.empty()) {
    waiting.kind = "NO_WORKER";
    waiting.reason = "no worker is attached and ready";
  } else if (!any_model) {
    waiting.kind = "NO_MODEL";
    waiting.reason =
        absl::StrCat("no ready worker holds the model ", demand.model);
  } else if (fits_empty) {
    waiting.kind = "NOT_ENOUGH_FREE";
    waiting.reason = absl::StrCat("not enough free slots for ", demand.ranks,
                                  " rank", demand.ranks == 1 ? "" : "s");
  } else {
    waiting.kind = "NEVER_FITS";
    waiting.reason = absl::StrCat(
        "wants ", demand.ranks, " slots; the ready workers that could run it ",
        "have ", slots,
        " (same model digest and ISA class); add workers, or lower "
        "resources.ranks");
  }
  return waiting;
}

// What decides whether a gang fits. Slots only get fewer in a cycle, so a shape
// that has failed is not tried again in it.
using Shape = std::tuple<int32_t, std::string, std::string, bool, std::string>;

Shape ShapeOf(const GangDemand& demand) {
  return {demand.ranks, demand.model, demand.model_digest, demand.one_isa_class,
          demand.isa_class};
}

std::set<std::string> JobsWithHeldSlots(
    const std::vector<WorkerOffer>& offers) {
  std::set<std::string> jobs;
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
  std::ranges::sort(waiting, [](const GangDemand& a, const GangDemand& b) {
    return std::make_tuple(-a.priority, a.submit_seq) <
           std::make_tuple(-b.priority, b.submit_seq);
  });
  const std::set<std::string> holders = JobsWithHeldSlots(offers);
  std::map<Shape, Waiting> failed;
  Plan plan;
  for (GangDemand& demand : waiting) {
    // Reserved for a job that waits for the slots which this one holds, the
    // rest of its gang would be kept from it, and each would wait for the
    // other.
    demand.passes_reservations = holders.contains(demand.job_id);
    const auto known = failed.find(ShapeOf(demand));
    if (known != failed.end() && !holders.contains(demand.job_id)) {
      Waiting why = known->second;
      why.job_id = demand.job_id;
      why.jobs_ahead = static_cast<int32_t>(plan.waiting.size());
      plan.waiting.push_back(std::move(why));
      continue;
    }
    std::optional<Gang> gang = FindGang(demand, offers);
    if (gang.has_value()) {
      TakeSlots(*gang, offers);
      plan.placements.push_back({demand.job_id, *std::move(gang)});
      continue;
    }
    const bool fits_empty = WouldFitEmpty(demand, offers);
    Waiting why = WhyWaiting(demand, offers, fits_empty);
    why.jobs_ahead = static_cast<int32_t>(plan.waiting.size());
    failed.emplace(ShapeOf(demand), why);
    plan.waiting.push_back(std::move(why));
    if (fits_empty) Reserve(demand, offers);
  }
  return plan;
}

}  // namespace ft
