// SPDX-License-Identifier: Apache-2.0

#include "coordinator/worker_health.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/proto_time.h"

namespace ft {

void WorkerHealth::Install(const std::vector<Snapshot::Worker>& rows) {
  marks_.clear();
  for (const Snapshot::Worker& row : rows) marks_[row.worker_id] = row.marks;
}

bool WorkerHealth::Counts(const std::string& worker_id, absl::Time at,
                          absl::Time now) const {
  if (now - at > kWindow) return false;
  const v1::WorkerMarks& marks = MarksOf(worker_id);
  return !marks.has_released() || at > FromProto(marks.released());
}

bool WorkerHealth::Knows(const std::string& worker_id,
                         const std::string& job_id) const {
  return std::ranges::any_of(
      MarksOf(worker_id).blames(),
      [&](const v1::Blame& blame) { return blame.job_id() == job_id; });
}

bool WorkerHealth::Accuse(const std::string& worker_id, const v1::Blame& blame,
                          absl::Time now) {
  v1::WorkerMarks& marks = marks_[worker_id];
  v1::WorkerMarks kept;
  for (const v1::Blame& earlier : marks.blames()) {
    if (now - FromProto(earlier.at()) <= kWindow) *kept.add_blames() = earlier;
  }
  *kept.add_blames() = blame;
  *marks.mutable_blames() = kept.blames();
  if (marks.has_quarantine() || kept.blames_size() < kJobsToQuarantine) {
    return false;
  }
  std::vector<std::string> jobs;
  for (const v1::Blame& each : kept.blames()) jobs.push_back(each.job_id());
  marks.mutable_quarantine()->set_reason(
      absl::StrCat(jobs.size(),
                   " jobs crashed here within an hour and went on "
                   "elsewhere: ",
                   absl::StrJoin(jobs, ", ")));
  *marks.mutable_quarantine()->mutable_since() = ToProto(now);
  return true;
}

void WorkerHealth::Release(const std::string& worker_id, absl::Time now) {
  v1::WorkerMarks released;
  *released.mutable_released() = ToProto(now);
  marks_[worker_id] = released;
  hangs_.erase(worker_id);
}

bool WorkerHealth::Hang(const std::string& worker_id, absl::Time now) {
  std::vector<absl::Time>& hangs = hangs_[worker_id];
  std::erase_if(hangs, [&](absl::Time at) { return now - at > kWindow; });
  hangs.push_back(now);
  return hangs.size() >= kHangsToSuspect;
}

const v1::WorkerMarks& WorkerHealth::MarksOf(
    const std::string& worker_id) const {
  const auto entry = marks_.find(worker_id);
  return entry == marks_.end() ? v1::WorkerMarks::default_instance()
                               : entry->second;
}

}  // namespace ft
