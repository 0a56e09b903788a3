// SPDX-License-Identifier: Apache-2.0

#include "tests/chaos/killer.h"

#include <signal.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace ft::testing {
namespace {

// A point that nobody passes meanwhile is given up for a kill at once.
constexpr absl::Duration kPointTimeout = absl::Seconds(20);
constexpr absl::Duration kLook = absl::Milliseconds(2);

bool Fits(Failpoint point, Victim victim) {
  const absl::string_view name = FailpointName(point);
  switch (victim) {
    case Victim::kRank:
      return absl::StartsWith(name, "rank.") || absl::StartsWith(name, "file.");
    case Victim::kWorker:
      return absl::StartsWith(name, "worker.");
    case Victim::kCoordinator:
      return absl::StartsWith(name, "coordinator.");
    case Victim::kAll:
      return false;
  }
  return false;
}

}  // namespace

void Killer::Run() {
  for (const PlannedKill& kill : plan_) {
    absl::SleepFor(kill.gap);
    Execute(kill);
  }
}

void Killer::Execute(const PlannedKill& kill) {
  if (kill.at_failpoint && KillAtFailpoint(kill)) return;
  KillNow(kill);
}

// The points that killed least come first, so that a long soak visits all.
std::optional<Failpoint> Killer::ChoosePoint(const PlannedKill& kill) const {
  std::vector<Failpoint> points;
  int64_t least = INT64_MAX;
  for (int i = 0; i < kFailpoints; ++i) {
    const auto point = static_cast<Failpoint>(i);
    if (!Fits(point, kill.victim)) continue;
    const int64_t killed = cluster_.failpoints().killed(point);
    if (killed < least) points.clear();
    least = std::min(least, killed);
    if (killed == least) points.push_back(point);
  }
  if (points.empty()) return std::nullopt;
  return points[kill.choice % points.size()];
}

bool Killer::KillAtFailpoint(const PlannedKill& kill) {
  const std::optional<Failpoint> point = ChoosePoint(kill);
  if (!point.has_value()) return false;
  FailpointFile& table = cluster_.failpoints();
  const int64_t before = table.killed(*point);
  table.Arm(*point, kill.nth);
  Provoke(*point, kill);
  const absl::Time deadline = absl::Now() + kPointTimeout;
  while (table.killed(*point) == before && absl::Now() < deadline) {
    absl::SleepFor(kLook);
  }
  table.Disarm(*point);
  if (table.killed(*point) == before) return false;
  Note(kill, std::string(FailpointName(*point)), "");
  return true;
}

// Some points are passed only after another death.
void Killer::Provoke(Failpoint point, const PlannedKill& kill) {
  switch (point) {
    case Failpoint::kCoordinatorLoaded:
      cluster_.failpoints().Arm(point, 1);
      cluster_.supervisor().Kill("coordinator");
      return;
    case Failpoint::kWorkerAttached:
      cluster_.failpoints().Arm(point, 1);
      cluster_.supervisor().Kill("coordinator");
      return;
    case Failpoint::kSourceFetched:
    case Failpoint::kRankResumed:
      cluster_.failpoints().Arm(point, 1);
      KillRankNow(kill);
      return;
    default:
      return;
  }
}

void Killer::KillNow(const PlannedKill& kill) {
  Supervisor& supervisor = cluster_.supervisor();
  const std::vector<std::string>& workers = cluster_.worker_names();
  switch (kill.victim) {
    case Victim::kRank:
      KillRankNow(kill);
      return;
    case Victim::kWorker: {
      const std::string& name = workers[kill.choice % workers.size()];
      while (!supervisor.Kill(name)) absl::SleepFor(kLook);
      Note(kill, "", name);
      return;
    }
    case Victim::kCoordinator:
      while (!supervisor.Kill("coordinator")) absl::SleepFor(kLook);
      Note(kill, "", "coordinator");
      return;
    case Victim::kAll: {
      const std::vector<RankProcess> ranks = cluster_.Ranks();
      supervisor.Kill("coordinator");
      for (const std::string& name : workers) supervisor.Kill(name);
      for (const RankProcess& rank : ranks) ::kill(rank.pid, SIGKILL);
      Note(kill, "",
           absl::StrCat("coordinator, ", workers.size(), " workers, ",
                        ranks.size(), " ranks"));
      return;
    }
  }
}

void Killer::KillRankNow(const PlannedKill& kill) {
  std::vector<RankProcess> ranks;
  const absl::Time deadline = absl::Now() + kPointTimeout;
  while ((ranks = cluster_.Ranks()).empty() && absl::Now() < deadline) {
    absl::SleepFor(kLook);
  }
  if (ranks.empty()) {
    Note(kill, "", "no rank ran");
    return;
  }
  const RankProcess& rank = ranks[kill.choice % ranks.size()];
  ::kill(rank.pid, SIGKILL);
  if (kill.victim == Victim::kRank) {
    Note(kill, "", absl::StrCat("rank ", rank.rank, " of ", rank.job_id));
  }
}

void Killer::Note(const PlannedKill& kill, const std::string& failpoint,
                  const std::string& who) {
  history_.push_back({.number = ++done_,
                      .at = absl::Now() - began_,
                      .victim = kill.victim,
                      .failpoint = failpoint,
                      .who = who});
  on_kill_(history_.back());
}

}  // namespace ft::testing
