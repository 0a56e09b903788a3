// SPDX-License-Identifier: Apache-2.0
//
// Tells those who watch that something new is there. It carries no backlog: a
// watcher that is woken reads the events it lacks from the store and the lines
// it lacks from the log, so a slow one costs nothing and misses nothing.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "ft/v1/events.pb.h"
#include "ft/v1/jobs.pb.h"

namespace ft {

// Thread-safe.
class EventBus {
 public:
  // What is newest of a job. Absent parts have not been seen since our start.
  struct News {
    std::shared_ptr<const v1::Job> job;
    std::optional<v1::StepMetrics> progress;
    std::optional<v1::StepMetrics> evaluation;
    int64_t last_event_seq = 0;
    bool is_deleted = false;
  };

  // Ends the watch when it goes.
  class Watch {
   public:
    Watch(EventBus& bus, std::string job_id, uint64_t number)
        : bus_(bus), job_id_(std::move(job_id)), number_(number) {}
    ~Watch();
    News Newest() const;

   private:
    EventBus& bus_;
    const std::string job_id_;
    const uint64_t number_;
  };

  // Calls `wake` after each change of the job, from any thread; it must not
  // block, nor call the bus. The bus must outlive the watch.
  std::unique_ptr<Watch> Subscribe(const std::string& job_id,
                                   std::function<void()> wake);

  void OnEvent(const v1::Event& event);
  void OnJob(std::shared_ptr<const v1::Job> job);
  void OnProgress(const std::string& job_id,
                  const std::optional<v1::StepMetrics>& progress,
                  const std::optional<v1::StepMetrics>& evaluation);
  void OnLogs(const std::string& job_id);
  void OnDeleted(const std::string& job_id);

  News Newest(const std::string& job_id) const;
  size_t watch_count() const;

 private:
  struct Topic {
    News news;
    std::map<uint64_t, std::function<void()>> watches;
  };

  void Unsubscribe(const std::string& job_id, uint64_t number);
  // Topics of ended jobs nobody watches are dropped.
  void Tidy(const std::string& job_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  uint64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t watch_count_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<std::string, Topic> topics_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ft
