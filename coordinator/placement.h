// SPDX-License-Identifier: Apache-2.0
//
// Finds room for one gang: all ranks or none, on as few workers as possible,
// and where results must be the same to the bit, on one ISA class and one
// digest of the base model. Pure.

#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "ft/v1/resources.pb.h"

namespace ft {

// What a job wants. The texts are the job's own and must outlive this: a plan
// is made of thousands of them, many times a second.
struct GangDemand {
  absl::string_view job_id;
  int32_t priority = 50;
  int64_t submit_seq = 0;
  int32_t ranks = 1;

  absl::string_view model;         // Name under the workers' model roots.
  absl::string_view model_digest;  // Empty: any, but one for the whole gang.

  // Results must not depend on where it runs: one ISA class for the gang.
  bool one_isa_class = true;
  absl::string_view isa_class;  // Of earlier attempts; empty: any.

  // Taken only where nothing else fits: a crash happened there.
  std::set<std::string> avoid_workers;

  // It may also have slots that are reserved for a job before it.
  bool passes_reservations = false;
};

// What a worker offers.
struct WorkerOffer {
  std::string worker_id;
  std::string isa_class;
  std::map<std::string, std::string, std::less<>> models;  // Name to digest.

  // Every slot, and for those in use by whom; held slots are free to their job.
  struct SlotOffer {
    int32_t slot = 0;
    bool is_free = true;
    std::string held_for;      // Set: only this job may have it.
    bool is_reserved = false;  // Held for a job that waits and never had it.
  };
  std::vector<SlotOffer> slots = {};
};

struct Gang {
  v1::Placement placement = {};  // By rank.
  std::string isa_class;
  std::string model_digest;
};

// Room for `demand` in what is free now. Nullopt: none.
std::optional<Gang> FindGang(const GangDemand& demand,
                             const std::vector<WorkerOffer>& offers);

// Where a new placement takes as many slots of each worker as the one before,
// gives every rank the worker it had: what it left there can be used again.
void KeepRanks(const v1::Placement& before, v1::Placement& placement);

// Whether it would fit if every slot were free.
bool WouldFitEmpty(const GangDemand& demand,
                   const std::vector<WorkerOffer>& offers);

// Whether `demand` could use `offer` at all (model, ISA class).
bool Matches(const GangDemand& demand, const WorkerOffer& offer);

}  // namespace ft
