// SPDX-License-Identifier: Apache-2.0

#include "coordinator/job_watch.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/job_state.h"
#include "coordinator/reasons.h"

namespace ft {
namespace {

constexpr int kEventsAtOnce = 100;

}  // namespace

std::string MakeResumeToken(int64_t seq) { return absl::StrCat("e", seq); }

absl::StatusOr<int64_t> ParseResumeToken(const std::string& token) {
  int64_t seq = 0;
  if (token.size() < 2 || token[0] != 'e' ||
      !absl::SimpleAtoi(token.substr(1), &seq) || seq < 0) {
    return ReasonError(absl::StatusCode::kInvalidArgument,
                       v1::REASON_INVALID_REQUEST,
                       absl::StrCat("resume_token: '", token,
                                    "' was not made by this server"));
  }
  return seq;
}

JobWatch::JobWatch(JobReader& store, EventBus& bus,
                   const v1::WatchJobRequest& request,
                   std::function<void()> wake)
    : store_(store),
      request_(request),
      watch_(bus.Subscribe(request.job_id(), std::move(wake))) {}

absl::StatusOr<JobWatch::Batch> JobWatch::Pull() {
  // The view first: whatever it knows is in the store already.
  const EventBus::News news = watch_->Newest();
  Batch batch;
  if (!has_begun_) FT_RETURN_IF_ERROR(Begin(batch));
  if (news.is_deleted) {
    batch.finished = true;
    return batch;
  }
  FT_ASSIGN_OR_RETURN(
      std::vector<v1::Event> events,
      store_.ListEvents(request_.job_id(), told_seq_, kEventsAtOnce));
  batch.more = events.size() == kEventsAtOnce;
  for (v1::Event& event : events) {
    told_seq_ = event.job_seq();
    v1::WatchJobResponse message;
    *message.mutable_event() = std::move(event);
    Tell(batch, std::move(message));
  }
  TellPoint(batch, news.progress, told_progress_);
  TellPoint(batch, news.evaluation, told_evaluation_);
  if (news.job != nullptr &&
      (news.job->status().state() != told_state_ ||
       news.job->status().attempts_size() != told_attempts_)) {
    TellJob(batch, *news.job);
  }
  batch.finished = IsTerminal(told_state_) && !batch.more;
  return batch;
}

absl::Status JobWatch::Begin(Batch& batch) {
  FT_ASSIGN_OR_RETURN(const v1::Job job, store_.GetJob(request_.job_id()));
  if (!request_.resume_token().empty()) {
    FT_ASSIGN_OR_RETURN(told_seq_, ParseResumeToken(request_.resume_token()));
  } else if (request_.only_new()) {
    while (true) {
      FT_ASSIGN_OR_RETURN(
          const std::vector<v1::Event> events,
          store_.ListEvents(request_.job_id(), told_seq_, kEventsAtOnce));
      if (events.empty()) break;
      told_seq_ = events.back().job_seq();
    }
  }
  has_begun_ = true;
  TellJob(batch, job);
  return absl::OkStatus();
}

void JobWatch::Tell(Batch& batch, v1::WatchJobResponse message) {
  message.set_resume_token(MakeResumeToken(told_seq_));
  batch.messages.push_back(std::move(message));
}

void JobWatch::TellJob(Batch& batch, const v1::Job& job) {
  told_state_ = job.status().state();
  told_attempts_ = job.status().attempts_size();
  v1::WatchJobResponse message;
  *message.mutable_job() = job;
  Tell(batch, std::move(message));
}

void JobWatch::TellPoint(Batch& batch,
                         const std::optional<v1::StepMetrics>& point,
                         std::pair<int64_t, uint64_t>& told) {
  if (!point.has_value()) return;
  const std::pair<int64_t, uint64_t> key(point->step(), point->attempt_epoch());
  if (key == told) return;
  told = key;
  v1::WatchJobResponse message;
  *message.mutable_progress() = *point;
  Tell(batch, std::move(message));
}

}  // namespace ft
