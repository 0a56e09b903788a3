// SPDX-License-Identifier: Apache-2.0
//
// Ranks that stand by: ft-train processes, one a slot, that have loaded their
// libraries and wait for a Start on their link. Each is used once and then
// replaced. Nothing of ATen has run in them: a job decides the instruction set
// before its first tensor.

#pragma once

#include <deque>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/rank_process.h"

namespace ft {

// Thread-safe.
class WarmRanks {
 public:
  struct Options {
    std::string program;    // ft-train.
    std::string workspace;  // Shown on their command lines.
    int count = 1;
    // After one was taken: loading libraries must not slow down its start.
    absl::Duration refill_delay = absl::Seconds(2);
    // After one ended by itself; doubles each time, at most a minute.
    absl::Duration retry_delay = absl::Seconds(1);
  };

  // `spawner` must outlive it. Begins at once.
  WarmRanks(Options options, RankSpawner& spawner);
  // Kills them.
  ~WarmRanks();

  // One that lives, or none: then a rank must be started cold. The caller owns
  // it.
  std::optional<SpawnedRank> Take();

  int count() const;

 private:
  void Loop();
  // Drops those that ended.
  void Reap() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  RankSpawner& spawner_;

  mutable absl::Mutex mutex_;  // Never held while a process is started.
  std::deque<SpawnedRank> ranks_ ABSL_GUARDED_BY(mutex_);
  absl::Time next_spawn_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Duration retry_delay_ ABSL_GUARDED_BY(mutex_);
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ft
