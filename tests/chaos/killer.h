// SPDX-License-Identifier: Apache-2.0
//
// Carries out a plan of kills against a cluster and remembers what it did.

#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/chaos/kill_plan.h"
#include "tests/chaos/soak_cluster.h"

namespace ft::testing {

// A kill that happened.
struct KillRecord {
  int number = 0;
  absl::Duration at;  // Since the soak began.
  Victim victim = Victim::kRank;
  std::string failpoint;  // Empty: at a random moment.
  std::string who;        // For people.
};

class Killer {
 public:
  // `cluster` must outlive it. `on_kill` is called after each, on Run's thread.
  Killer(SoakCluster& cluster, std::vector<PlannedKill> plan,
         std::function<void(const KillRecord&)> on_kill)
      : cluster_(cluster),
        plan_(std::move(plan)),
        on_kill_(std::move(on_kill)) {}

  // Returns when the plan is done.
  void Run();

  int done() const { return done_; }
  const std::vector<KillRecord>& history() const { return history_; }

 private:
  void Execute(const PlannedKill& kill);
  bool KillAtFailpoint(const PlannedKill& kill);
  std::optional<Failpoint> ChoosePoint(const PlannedKill& kill) const;
  void Provoke(Failpoint point, const PlannedKill& kill);
  void KillNow(const PlannedKill& kill);
  void KillRankNow(const PlannedKill& kill);
  void Note(const PlannedKill& kill, const std::string& failpoint,
            const std::string& who);

  SoakCluster& cluster_;
  const std::vector<PlannedKill> plan_;
  const std::function<void(const KillRecord&)> on_kill_;
  const absl::Time began_ = absl::Now();
  std::atomic<int> done_ = 0;
  std::vector<KillRecord> history_;
};

}  // namespace ft::testing
