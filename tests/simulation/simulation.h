// SPDX-License-Identifier: Apache-2.0
//
// The real core, scheduler and retry policy on virtual time, with model
// workers, clients, a network and a store that break as one seed says. The
// store thread's rules are kept: decisions wait in a batch, effects leave after
// its commit. Deterministic: one seed is one history.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "ft/v1/jobs.pb.h"

namespace ft::testing {

// Bugs of the core, built only for the test that shows they are found: the
// commands that go into the core, or the decisions that come out, are changed.
// No product code knows of them.
enum class Plant {
  kNone,
  kEffectsBeforeCommit,     // Told before it is durable.
  kStaleEpochAccepted,      // An old gang's artifact counts as the new one's.
  kEpochNotDurable,         // The epoch counter is forgotten by a restart.
  kReplyNotStored,          // A request sent again after a restart acts again.
  kEventLost,               // A change of state without its event.
  kEndOfAttemptNotStored,   // The row says the attempt lives.
  kJobRowNotStored,         // The event says more than the row.
  kBarrierOpensEarly,       // One ready rank counts as all.
  kPublishesEarly,          // One done member counts as all.
  kSpoolMarkNotStored,      // A worker's event is stored again.
  kNoReloadAfterFullStore,  // The core goes on from what was not stored.
  kCycleForgotten,          // Room becomes free, and nobody plans.
  kQuarantineNotStored,     // A restart ends it.
  kKillCountsAsCrash,       // SIGKILL becomes SIGSEGV.
  kDurableStepGoesBack,     // A late commit of an old step counts as newest.
  kStaleRanksAreValid,      // Heartbeats renew every epoch.
};

struct SimulationOptions {
  uint64_t seed = 1;
  // Of virtual time in which things break.
  absl::Duration storm = absl::Minutes(10);
  Plant plant = Plant::kNone;
  // Keeps what happened last, for the report of a violation.
  bool keeps_history = false;
};

struct SimulationReport {
  std::string violation;  // Empty: none.
  absl::Duration at;      // Virtual time of the violation, or of the end.
  int64_t events = 0;
  std::map<std::string, int> faults;     // How often each was drawn.
  std::map<v1::JobState, int> outcomes;  // Of jobs at the end.
  std::map<std::string, int> seen;       // Rare things that happened.
  std::vector<std::string> history;
};

SimulationReport RunSimulation(const SimulationOptions& options);

}  // namespace ft::testing
