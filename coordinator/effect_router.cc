// SPDX-License-Identifier: Apache-2.0

#include "coordinator/effect_router.h"

#include <utility>

#include "common/failpoint.h"
#include "common/log.h"
#include "coordinator/job_state.h"

namespace ft {

uint64_t EffectRouter::Expect(OnReply on_reply) {
  absl::MutexLock hold(&mutex_);
  const uint64_t ticket = ++last_number_;
  replies_[ticket] = std::move(on_reply);
  return ticket;
}

uint64_t EffectRouter::AddLink(std::shared_ptr<WorkerLink> link) {
  absl::MutexLock hold(&mutex_);
  const uint64_t session = ++last_number_;
  links_[session] = std::move(link);
  return session;
}

void EffectRouter::RemoveLink(uint64_t session) {
  absl::MutexLock hold(&mutex_);
  links_.erase(session);
}

std::vector<std::shared_ptr<WorkerLink>> EffectRouter::Links() const {
  absl::MutexLock hold(&mutex_);
  std::vector<std::shared_ptr<WorkerLink>> links;
  for (const auto& [session, link] : links_) links.push_back(link);
  return links;
}

uint64_t EffectRouter::EpochOf(const std::string& job_id) const {
  absl::MutexLock hold(&mutex_);
  const auto entry = epochs_.find(job_id);
  return entry == epochs_.end() ? 0 : entry->second;
}

std::vector<std::string> EffectRouter::LiveJobs() const {
  absl::MutexLock hold(&mutex_);
  std::vector<std::string> jobs;
  for (const auto& [job_id, live] : live_) jobs.push_back(job_id);
  return jobs;
}

std::vector<v1::WorkerInfo> EffectRouter::Workers() const {
  absl::MutexLock hold(&mutex_);
  if (workers_ == nullptr) return {};
  return *workers_;
}

void EffectRouter::Explain(v1::Job& job) const {
  const v1::JobState state = job.status().state();
  if (state != v1::JOB_STATE_QUEUED && state != v1::JOB_STATE_RECOVERING) {
    return;
  }
  absl::MutexLock hold(&mutex_);
  const auto entry = waiting_.find(job.job_id());
  if (entry == waiting_.end()) return;
  job.mutable_status()->set_waiting_for(entry->second->why->text);
  job.mutable_status()->set_jobs_ahead(entry->second->jobs_ahead);
}

std::map<std::pair<v1::JobState, std::string>, int> EffectRouter::CountJobs()
    const {
  absl::MutexLock hold(&mutex_);
  std::map<std::pair<v1::JobState, std::string>, int> counts;
  for (const auto& [job_id, live] : live_) ++counts[{live.state, live.queue}];
  return counts;
}

std::map<std::string, int> EffectRouter::CountWaiting() const {
  absl::MutexLock hold(&mutex_);
  std::map<std::string, int> counts;
  for (const auto& [job_id, waiting] : waiting_) ++counts[waiting->why->kind];
  return counts;
}

void EffectRouter::Release(Effect effect) {
  std::visit([this](auto& what) { On(what); }, effect);
}

void EffectRouter::Committed(absl::Duration took, size_t) {
  metrics_.Committed(took);
}

void EffectRouter::On(Reply& reply) {
  OnReply on_reply;
  {
    absl::MutexLock hold(&mutex_);
    const auto entry = replies_.find(reply.ticket);
    if (entry == replies_.end()) return;
    on_reply = std::move(entry->second);
    replies_.erase(entry);
  }
  Pass(Failpoint::kReply);
  on_reply(reply);
}

void EffectRouter::On(ToWorker& order) {
  std::shared_ptr<WorkerLink> link;
  {
    absl::MutexLock hold(&mutex_);
    const auto entry = links_.find(order.session);
    if (entry == links_.end()) return;
    link = entry->second;
  }
  Pass(Failpoint::kOrder);
  link->Send(std::move(order.message));
}

void EffectRouter::On(CloseSession& close) {
  std::shared_ptr<WorkerLink> link;
  {
    absl::MutexLock hold(&mutex_);
    const auto entry = links_.find(close.session);
    if (entry == links_.end()) return;
    link = std::move(entry->second);
    links_.erase(entry);
  }
  link->Close(close.status);
}

void EffectRouter::On(EventHappened& happened) {
  const v1::Event& event = happened.event;
  if (event.kind() == v1::EVENT_KIND_STATE_CHANGED ||
      event.kind() == v1::EVENT_KIND_JOB_CREATED) {
    Log(LogSeverity::kInfo, "coordinator", "job state",
        {{"job", event.job_id()},
         {"epoch", event.epoch()},
         {"change", event.message()}});
  } else if (event.kind() == v1::EVENT_KIND_ATTEMPT_ENDED) {
    Log(LogSeverity::kInfo, "coordinator", "attempt ended",
        {{"job", event.job_id()},
         {"epoch", event.epoch()},
         {"message", event.message()}});
  } else if (event.kind() == v1::EVENT_KIND_DIVERGED ||
             event.kind() == v1::EVENT_KIND_CONDITION ||
             event.kind() == v1::EVENT_KIND_WARNING) {
    Log(LogSeverity::kWarn, "coordinator", "job event",
        {{"job", event.job_id()},
         {"epoch", event.epoch()},
         {"message", event.message()}});
  }
  bus_.OnEvent(event);
}

void EffectRouter::On(JobChanged& changed) {
  const v1::Job& job = *changed.job;
  const bool is_over = IsTerminal(job.status().state());
  {
    absl::MutexLock hold(&mutex_);
    if (is_over) {
      live_.erase(job.job_id());
      waiting_.erase(job.job_id());
    } else {
      live_[job.job_id()] = {job.status().state(), job.spec().queue()};
    }
  }
  if (is_over) on_job_over_(job.job_id(), /*deleted=*/false);
  bus_.OnJob(changed.job);
}

void EffectRouter::On(JobDeleted& deleted) {
  on_job_over_(deleted.job_id, /*deleted=*/true);
  bus_.OnDeleted(deleted.job_id);
}

void EffectRouter::On(LeaseChanged& changed) {
  absl::MutexLock hold(&mutex_);
  if (changed.epoch == 0) {
    epochs_.erase(changed.job_id);
  } else {
    epochs_[changed.job_id] = changed.epoch;
  }
}

void EffectRouter::On(FleetChanged& changed) {
  absl::MutexLock hold(&mutex_);
  workers_ = std::move(changed.workers);
}

void EffectRouter::On(WaitingChanged& changed) {
  absl::flat_hash_map<absl::string_view, const Waiting*> index;
  index.reserve(changed.waiting->size());
  for (const Waiting& waiting : *changed.waiting) {
    index[waiting.job_id] = &waiting;
  }
  // Callers of Explain do not wait until the old ones are gone.
  std::shared_ptr<const std::vector<Waiting>> plan = changed.waiting;
  absl::MutexLock hold(&mutex_);
  waiting_.swap(index);
  plan_.swap(plan);
}

void EffectRouter::On(Observation& observation) {
  metrics_.Observe(observation);
}

}  // namespace ft
