// SPDX-License-Identifier: Apache-2.0

#include "coordinator/log_tail.h"

#include <deque>
#include <utility>

#include "common/status.h"
#include "coordinator/job_state.h"

namespace ft {

LogTail::LogTail(JobReader& store, EventBus& bus, RunRecords& records,
                 const v1::TailLogsRequest& request, absl::Time now,
                 std::function<void()> wake)
    : store_(store),
      records_(records),
      request_(request),
      watch_(bus.Subscribe(request.job_id(), std::move(wake))) {
  if (request.has_rank()) query_.rank = request.rank();
  query_.min_level = request.min_level();
  if (request.has_since()) {
    query_.since = now - absl::Seconds(request.since().seconds()) -
                   absl::Nanoseconds(request.since().nanos());
  }
}

absl::StatusOr<LogTail::Batch> LogTail::Pull() {
  const EventBus::News news = watch_->Newest();
  FT_ASSIGN_OR_RETURN(const bool is_over, IsOver(news));
  Batch batch;
  if (!std::exchange(has_begun_, true) && request_.tail_lines() > 0) {
    FT_RETURN_IF_ERROR(SkipToTail(batch));
  } else {
    FT_ASSIGN_OR_RETURN(RunRecords::Lines found,
                        records_.Logs(request_.job_id(), offset_, query_));
    offset_ = found.next_offset;
    batch.more = found.more;
    for (v1::LogLine& line : found.lines) {
      *batch.lines.add_lines() = std::move(line);
    }
  }
  batch.finished = !batch.more && (is_over || !request_.follow());
  return batch;
}

absl::StatusOr<bool> LogTail::IsOver(const EventBus::News& news) {
  if (news.is_deleted) return true;
  if (news.job != nullptr) return IsTerminal(news.job->status().state());
  FT_ASSIGN_OR_RETURN(const v1::Job job, store_.GetJob(request_.job_id()));
  return IsTerminal(job.status().state());
}

// Reads all, keeps the last lines.
absl::Status LogTail::SkipToTail(Batch& batch) {
  std::deque<v1::LogLine> last;
  bool more = true;
  while (more) {
    FT_ASSIGN_OR_RETURN(RunRecords::Lines found,
                        records_.Logs(request_.job_id(), offset_, query_));
    offset_ = found.next_offset;
    more = found.more;
    for (v1::LogLine& line : found.lines) {
      last.push_back(std::move(line));
      if (std::cmp_greater(last.size(), request_.tail_lines())) {
        last.pop_front();
      }
    }
  }
  for (v1::LogLine& line : last) *batch.lines.add_lines() = std::move(line);
  return absl::OkStatus();
}

}  // namespace ft
