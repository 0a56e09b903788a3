// SPDX-License-Identifier: Apache-2.0

#include "coordinator/event_bus.h"

#include <algorithm>
#include <utility>

#include "coordinator/job_state.h"

namespace ft {

EventBus::Watch::~Watch() { bus_.Unsubscribe(job_id_, number_); }

EventBus::News EventBus::Watch::Newest() const { return bus_.Newest(job_id_); }

std::unique_ptr<EventBus::Watch> EventBus::Subscribe(
    const std::string& job_id, std::function<void()> wake) {
  absl::MutexLock hold(&mutex_);
  const uint64_t number = ++last_number_;
  topics_[job_id].watches[number] = std::move(wake);
  ++watch_count_;
  return std::make_unique<Watch>(*this, job_id, number);
}

void EventBus::OnEvent(const v1::Event& event) {
  absl::MutexLock hold(&mutex_);
  Topic& topic = topics_[event.job_id()];
  topic.news.last_event_seq =
      std::max(topic.news.last_event_seq, event.job_seq());
  for (const auto& [number, wake] : topic.watches) wake();
}

void EventBus::OnJob(std::shared_ptr<const v1::Job> job) {
  absl::MutexLock hold(&mutex_);
  const std::string& job_id = job->job_id();
  Topic& topic = topics_[job_id];
  topic.news.job = job;
  for (const auto& [number, wake] : topic.watches) wake();
  Tidy(job_id);
}

void EventBus::OnProgress(const std::string& job_id,
                          const std::optional<v1::StepMetrics>& progress,
                          const std::optional<v1::StepMetrics>& evaluation) {
  absl::MutexLock hold(&mutex_);
  const auto entry = topics_.find(job_id);
  if (entry == topics_.end()) return;
  Topic& topic = entry->second;
  if (progress.has_value()) topic.news.progress = progress;
  if (evaluation.has_value()) topic.news.evaluation = evaluation;
  for (const auto& [number, wake] : topic.watches) wake();
}

void EventBus::OnLogs(const std::string& job_id) {
  absl::MutexLock hold(&mutex_);
  const auto entry = topics_.find(job_id);
  if (entry == topics_.end()) return;
  for (const auto& [number, wake] : entry->second.watches) wake();
}

void EventBus::OnDeleted(const std::string& job_id) {
  absl::MutexLock hold(&mutex_);
  const auto entry = topics_.find(job_id);
  if (entry == topics_.end()) return;
  entry->second.news.is_deleted = true;
  for (const auto& [number, wake] : entry->second.watches) wake();
  Tidy(job_id);
}

EventBus::News EventBus::Newest(const std::string& job_id) const {
  absl::MutexLock hold(&mutex_);
  const auto entry = topics_.find(job_id);
  return entry == topics_.end() ? News() : entry->second.news;
}

size_t EventBus::watch_count() const {
  absl::MutexLock hold(&mutex_);
  return watch_count_;
}

void EventBus::Unsubscribe(const std::string& job_id, uint64_t number) {
  absl::MutexLock hold(&mutex_);
  topics_[job_id].watches.erase(number);
  --watch_count_;
  Tidy(job_id);
}

void EventBus::Tidy(const std::string& job_id) {
  const auto entry = topics_.find(job_id);
  if (entry == topics_.end() || !entry->second.watches.empty()) return;
  const News& news = entry->second.news;
  const bool is_over = news.is_deleted || news.job == nullptr ||
                       IsTerminal(news.job->status().state());
  if (is_over) topics_.erase(entry);
}

}  // namespace ft
