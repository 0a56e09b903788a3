// SPDX-License-Identifier: Apache-2.0

#include "tests/chaos/soak_monitor.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace ft::testing {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(500);
// A rank dies with its worker, not a moment later; this much later it is left.
constexpr absl::Duration kOrphanGrace = absl::Seconds(2);

int64_t MedianOf(std::vector<int64_t> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

SoakMonitor::SoakMonitor(SoakCluster& cluster)
    : cluster_(cluster), thread_([this] { Loop(); }) {}

SoakMonitor::~SoakMonitor() {
  {
    absl::MutexLock hold(&mutex_);
    closing_ = true;
  }
  thread_.join();
}

std::vector<std::string> SoakMonitor::complaints() const {
  absl::MutexLock hold(&mutex_);
  return complaints_;
}

void SoakMonitor::Loop() {
  while (true) {
    {
      absl::MutexLock hold(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&closing_), kLook)) return;
    }
    LookAtRanks();
    LookAtMemory();
  }
}

void SoakMonitor::LookAtRanks() {
  // The ranks first: a worker that starts one meanwhile is known then.
  const std::vector<RankProcess> ranks = cluster_.Ranks();
  std::set<pid_t> workers;
  for (const std::string& name : cluster_.worker_names()) {
    workers.insert(cluster_.supervisor().Pid(name));
  }
  std::map<pid_t, absl::Time> orphans;
  for (const RankProcess& rank : ranks) {
    if (workers.contains(rank.parent)) continue;
    const auto known = orphan_since_.find(rank.pid);
    const absl::Time since =
        known == orphan_since_.end() ? absl::Now() : known->second;
    orphans[rank.pid] = since;
    if (since != absl::InfinitePast() && absl::Now() - since > kOrphanGrace) {
      orphans[rank.pid] = absl::InfinitePast();  // Told once.
      absl::MutexLock hold(&mutex_);
      complaints_.push_back(absl::StrCat(
          "I7: rank ", rank.rank, " of ", rank.job_id, " (process ", rank.pid,
          ") lives ", absl::FormatDuration(kOrphanGrace), " after its worker"));
    }
  }
  orphan_since_ = std::move(orphans);
}

void SoakMonitor::LookAtMemory() {
  std::vector<std::string> names = cluster_.worker_names();
  names.push_back("coordinator");
  for (const std::string& name : names) {
    const int life = cluster_.supervisor().lives(name);
    const int64_t bytes = cluster_.ResidentBytes(name);
    if (bytes == 0) continue;
    absl::MutexLock hold(&mutex_);
    auto& [known_life, samples] = samples_[name];
    if (known_life != life) samples.clear();
    known_life = life;
    samples.emplace_back(absl::Now(), bytes);
  }
}

std::map<std::string, MemoryGrowth> SoakMonitor::Growth() const {
  absl::MutexLock hold(&mutex_);
  std::map<std::string, MemoryGrowth> growth;
  for (const auto& [name, life] : samples_) {
    const Samples& samples = life.second;
    if (samples.size() < 8) {
      growth[name] = {};
      continue;
    }
    const size_t half = samples.size() / 2;
    const size_t eighth = samples.size() / 8;
    std::vector<int64_t> first, last;
    for (size_t i = 0; i < eighth; ++i) {
      first.push_back(samples[half + i].second);
      last.push_back(samples[samples.size() - 1 - i].second);
    }
    growth[name] = {.watched = samples.back().first - samples[half].first,
                    .first_bytes = MedianOf(std::move(first)),
                    .last_bytes = MedianOf(std::move(last))};
  }
  return growth;
}

}  // namespace ft::testing
