// SPDX-License-Identifier: Apache-2.0
//
// Runs the core on one thread and the store on another. All decisions that wait
// go into one transaction; only after its COMMIT their effects are released, so
// nothing is told that a crash could unsay.

#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/core.h"
#include "coordinator/job_store.h"

namespace ft {

// Where effects go: called on the store thread, in order, never at once.
class EffectSink {
 public:
  virtual ~EffectSink() = default;
  virtual void Release(Effect effect) = 0;

  // One transaction took so long.
  virtual void Committed(absl::Duration took, size_t decisions) = 0;

  // The store can no longer be trusted: end the process and recover.
  virtual void Fatal(const absl::Status& error) = 0;
};

// Thread-safe.
class Committer {
 public:
  // `store`, `clock` and `sink` must outlive this. The core begins with what
  // the store has.
  static absl::StatusOr<std::unique_ptr<Committer>> Start(const Timers& timers,
                                                          JobStore& store,
                                                          const Clock& clock,
                                                          EffectSink& sink);

  // Commits and releases what was posted, then ends the threads.
  ~Committer();

  void Post(Command command);

  // Whether the last transaction was stored: /readyz.
  bool is_store_writable() const { return is_store_writable_.load(); }

  // Whether the core thread has ticked within its gap: /livez.
  bool is_live() const;

 private:
  static constexpr size_t kMaxBatch = 256;

  Committer(const Timers& timers, JobStore& store, const Clock& clock,
            EffectSink& sink, Snapshot snapshot);

  void RunCore();
  void RunStore();
  void CommitBatch(std::vector<Decision> batch);
  void DropAndReload(std::vector<Decision> batch, const absl::Status& error);
  void Apply(const Command& command) ABSL_EXCLUSIVE_LOCKS_REQUIRED(core_mutex_);

  const Timers timers_;
  JobStore& store_;
  const Clock& clock_;
  EffectSink& sink_;
  std::atomic<int64_t> last_tick_ns_{0};
  std::atomic<bool> is_store_writable_{true};
  absl::Time next_prune_;  // Of the store thread.

  // The mailbox.
  absl::Mutex mail_mutex_;
  bool stopping_ ABSL_GUARDED_BY(mail_mutex_) = false;
  std::vector<Command> mail_ ABSL_GUARDED_BY(mail_mutex_);

  // Held while commands are applied and their decisions queued, so that a
  // reload sees either both or neither.
  absl::Mutex core_mutex_ ABSL_ACQUIRED_BEFORE(queue_mutex_);
  Core core_ ABSL_GUARDED_BY(core_mutex_);

  absl::Mutex queue_mutex_;
  bool core_ended_ ABSL_GUARDED_BY(queue_mutex_) = false;
  std::deque<Decision> queue_ ABSL_GUARDED_BY(queue_mutex_);

  std::thread core_thread_;
  std::thread store_thread_;
};

}  // namespace ft
