// SPDX-License-Identifier: Apache-2.0

#include "worker/warm_ranks.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "common/log.h"

namespace ft {
namespace {

// Between looks at whether one has ended.
constexpr absl::Duration kLook = absl::Seconds(1);
constexpr absl::Duration kLongestRetry = absl::Minutes(1);

// It stays to be waited for.
bool HasEnded(pid_t pid) {
  siginfo_t info = {};
  return waitid(P_PID, static_cast<id_t>(pid), &info,
                WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == pid;
}

// What a process that has ended had to say.
std::string LastWords(const SpawnedRank& rank) {
  char text[1024];
  // What it started may hold the other end open.
  fcntl(rank.output.get(), F_SETFL, O_NONBLOCK);
  const ssize_t size = read(rank.output.get(), text, sizeof(text));
  return std::string(text, static_cast<size_t>(std::max<ssize_t>(size, 0)));
}

}  // namespace

WarmRanks::WarmRanks(Options options, RankSpawner& spawner)
    : options_(std::move(options)),
      spawner_(spawner),
      retry_delay_(options_.retry_delay),
      thread_([this] { Loop(); }) {}

WarmRanks::~WarmRanks() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  thread_.join();
  absl::MutexLock lock(&mutex_);
  for (const SpawnedRank& rank : ranks_) {
    KillRank(rank.pid);
    WaitForRank(rank.pid);
  }
}

std::optional<SpawnedRank> WarmRanks::Take() {
  absl::MutexLock lock(&mutex_);
  Reap();
  if (ranks_.empty()) return std::nullopt;
  // The oldest has had the most time to load.
  SpawnedRank rank = std::move(ranks_.front());
  ranks_.pop_front();
  next_spawn_ = absl::Now() + options_.refill_delay;
  return rank;
}

int WarmRanks::count() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(ranks_.size());
}

void WarmRanks::Reap() {
  for (auto rank = ranks_.begin(); rank != ranks_.end();) {
    if (!HasEnded(rank->pid)) {
      ++rank;
      continue;
    }
    const RankEnd end = WaitForRank(rank->pid);
    Log(LogSeverity::kWarn, "worker", "a rank that stood by has ended",
        {{"exit_code", end.exit_code},
         {"signal", end.signal},
         {"said", LastWords(*rank)}});
    rank = ranks_.erase(rank);
    next_spawn_ = absl::Now() + retry_delay_;
    retry_delay_ = std::min(2 * retry_delay_, kLongestRetry);
  }
}

void WarmRanks::Loop() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      Reap();
      const bool wants_one = static_cast<int>(ranks_.size()) < options_.count;
      const absl::Duration wait =
          wants_one ? std::min(kLook, next_spawn_ - absl::Now()) : kLook;
      if (!wants_one || wait > absl::ZeroDuration()) {
        mutex_.AwaitWithTimeout(absl::Condition(&closing_), wait);
        if (closing_) return;
        continue;
      }
      if (closing_) return;
    }
    absl::StatusOr<SpawnedRank> rank =
        spawner_.Spawn(options_.program, options_.workspace,
                       /*stands_by=*/true);
    absl::MutexLock lock(&mutex_);
    if (rank.ok()) {
      ranks_.push_back(*std::move(rank));
    } else {
      next_spawn_ = absl::Now() + retry_delay_;
      retry_delay_ = std::min(2 * retry_delay_, kLongestRetry);
    }
  }
}

}  // namespace ft
