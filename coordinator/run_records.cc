// SPDX-License-Identifier: Apache-2.0

#include "coordinator/run_records.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/id.h"
#include "common/status.h"
#include "coordinator/proto_time.h"

namespace ft {
namespace {

constexpr size_t kLinesBytes = 256 << 10;

bool SameBits(double a, double b) {
  return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
}

// Whether two attempts did the same in one step. Times and memory may differ.
bool SameStep(const v1::StepMetrics& a, const v1::StepMetrics& b) {
  return SameBits(a.loss(), b.loss()) &&
         SameBits(a.grad_norm(), b.grad_norm()) &&
         SameBits(a.learning_rate(), b.learning_rate()) &&
         SameBits(a.eval_loss(), b.eval_loss()) && a.tokens() == b.tokens() &&
         a.targets() == b.targets();
}

bool Wanted(const v1::LogLine& line, const LogQuery& query) {
  if (query.rank.has_value() && line.rank() != *query.rank) return false;
  if (query.since.has_value() && FromProto(line.at()) < *query.since) {
    return false;
  }
  const int level = line.level() == v1::LOG_LEVEL_UNSPECIFIED
                        ? v1::LOG_LEVEL_INFO
                        : line.level();
  return level >= query.min_level;
}

}  // namespace

std::string RunRecords::Path(const std::string& job_id,
                             const char* name) const {
  return JoinPath(JoinPath(dir_, job_id), name);
}

absl::StatusOr<std::shared_ptr<RunRecords::JobRecords>> RunRecords::Open(
    const std::string& job_id) {
  if (!IsJobId(job_id)) {  // It becomes a path.
    return absl::InvalidArgumentError(absl::StrCat("no job id: ", job_id));
  }
  std::shared_ptr<JobRecords> records;
  {
    absl::MutexLock hold(&mutex_);
    std::shared_ptr<JobRecords>& entry = jobs_[job_id];
    if (entry == nullptr) entry = std::make_shared<JobRecords>();
    records = entry;
    records->last_use = ++uses_;
    CloseUnused();
  }
  absl::MutexLock hold(&records->mutex);
  if (!records->metrics.has_value()) {
    FT_RETURN_IF_ERROR(Load(job_id, *records), job_id);
  }
  return records;
}

// Somebody may look at a job long after it has ended; its files must not stay
// open for ever. Who is at work holds the records, and they stay.
void RunRecords::CloseUnused() {
  while (jobs_.size() > kMaxOpen) {
    auto oldest = jobs_.end();
    for (auto entry = jobs_.begin(); entry != jobs_.end(); ++entry) {
      if (entry->second.use_count() > 1) continue;
      if (oldest == jobs_.end() ||
          entry->second->last_use < oldest->second->last_use) {
        oldest = entry;
      }
    }
    if (oldest == jobs_.end()) return;
    jobs_.erase(oldest);
  }
}

absl::Status RunRecords::Load(const std::string& job_id, JobRecords& records)
    ABSL_NO_THREAD_SAFETY_ANALYSIS {
  FT_RETURN_IF_ERROR(MakeDirs(JoinPath(dir_, job_id), 0700));
  Stored ignored;
  for (const char* name : {"metrics.seg", "logs.seg"}) {
    FT_RETURN_IF_ERROR(
        ReadSegment(Path(job_id, name), 0, [&](absl::string_view bytes) {
          v1::ReportRequest report;
          if (report.ParseFromArray(bytes.data(),
                                    static_cast<int>(bytes.size()))) {
            Keep(report, records, ignored);
          }
          return true;
        }).status());
  }
  FT_ASSIGN_OR_RETURN(records.logs, SegmentLog::Open(Path(job_id, "logs.seg")));
  FT_ASSIGN_OR_RETURN(records.metrics,
                      SegmentLog::Open(Path(job_id, "metrics.seg")));
  return absl::OkStatus();
}

// Takes the points into the index and says what was new about them.
void RunRecords::Keep(const v1::ReportRequest& report, JobRecords& records,
                      Stored& stored) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  int64_t& seq = records.seqs[{report.epoch(), report.worker_id()}];
  seq = std::max(seq, report.seq());
  for (const v1::StepMetrics& said : report.metrics()) {
    v1::StepMetrics point = said;
    point.set_attempt_epoch(report.epoch());
    const bool is_evaluation = point.has_eval_loss();
    const auto [entry, is_new] =
        records.points.emplace(std::pair(point.step(), is_evaluation), point);
    if (!is_new) {
      const v1::StepMetrics& before = entry->second;
      if (!SameStep(before, point)) {
        stored.diverged.push_back(
            {point.step(),
             absl::StrCat("step ", point.step(), " had loss ", before.loss(),
                          " under epoch ", before.attempt_epoch(),
                          " and has loss ", point.loss(), " under epoch ",
                          point.attempt_epoch())});
      }
      if (before.attempt_epoch() > point.attempt_epoch()) continue;
      entry->second = point;
    }
    (is_evaluation ? stored.evaluation : stored.progress) = point;
  }
}

absl::StatusOr<RunRecords::Stored> RunRecords::Append(
    const v1::ReportRequest& report) {
  FT_ASSIGN_OR_RETURN(const std::shared_ptr<JobRecords> records,
                      Open(report.job_id()));
  absl::MutexLock hold(&records->mutex);
  Stored stored;
  const auto seq = records->seqs.find({report.epoch(), report.worker_id()});
  if (seq != records->seqs.end() && seq->second >= report.seq()) return stored;

  stored.is_new = true;
  if (!report.logs().empty() && records->logs->size() < kMaxLogBytes) {
    v1::ReportRequest lines = report;
    lines.clear_metrics();
    if (records->logs->size() + static_cast<int64_t>(report.ByteSizeLong()) >=
        kMaxLogBytes) {
      // The last lines that are kept say so.
      v1::LogLine* last = lines.add_logs();
      *last->mutable_at() = report.logs().rbegin()->at();
      last->set_epoch(report.epoch());
      last->set_text(absl::StrCat("... ", kMaxLogBytes,
                                  " bytes of log are kept; what follows is "
                                  "only in the worker's rank.log"));
    }
    FT_RETURN_IF_ERROR(records->logs->Append(lines.SerializeAsString()));
  }
  v1::ReportRequest points = report;
  points.clear_logs();
  if (!report.metrics().empty()) {
    FT_RETURN_IF_ERROR(records->metrics->Append(points.SerializeAsString()));
  }
  Keep(points, *records, stored);
  return stored;
}

absl::StatusOr<std::vector<v1::StepMetrics>> RunRecords::Metrics(
    const std::string& job_id, int64_t after_step, int limit) {
  FT_ASSIGN_OR_RETURN(const std::shared_ptr<JobRecords> records, Open(job_id));
  absl::MutexLock hold(&records->mutex);
  std::vector<v1::StepMetrics> points;
  for (auto entry = records->points.lower_bound({after_step + 1, false});
       entry != records->points.end(); ++entry) {
    const v1::StepMetrics& point = entry->second;
    if (std::cmp_greater_equal(points.size(), limit) &&
        points.back().step() != point.step()) {
      break;
    }
    points.push_back(point);
  }
  return points;
}

absl::StatusOr<int64_t> RunRecords::LastStep(const std::string& job_id) {
  // Most jobs of a long queue have no records, and get no folder by this.
  if (!Exists(Path(job_id, "metrics.seg"))) return 0;
  FT_ASSIGN_OR_RETURN(const std::shared_ptr<JobRecords> records, Open(job_id));
  absl::MutexLock hold(&records->mutex);
  return records->points.empty() ? 0 : records->points.rbegin()->first.first;
}

absl::StatusOr<RunRecords::Lines> RunRecords::Logs(const std::string& job_id,
                                                   int64_t offset,
                                                   const LogQuery& query) {
  if (!IsJobId(job_id)) {
    return absl::InvalidArgumentError(absl::StrCat("no job id: ", job_id));
  }
  Lines found;
  size_t bytes = 0;
  FT_ASSIGN_OR_RETURN(
      found.next_offset,
      ReadSegment(Path(job_id, "logs.seg"), offset,
                  [&](absl::string_view record) {
                    if (bytes >= kLinesBytes) {
                      found.more = true;
                      return false;
                    }
                    bytes += record.size();
                    v1::ReportRequest report;
                    if (!report.ParseFromArray(
                            record.data(), static_cast<int>(record.size()))) {
                      return true;
                    }
                    for (v1::LogLine& line : *report.mutable_logs()) {
                      line.set_epoch(report.epoch());
                      if (Wanted(line, query)) {
                        found.lines.push_back(std::move(line));
                      }
                    }
                    return true;
                  }));
  return found;
}

void RunRecords::Close(const std::string& job_id) {
  absl::MutexLock hold(&mutex_);
  jobs_.erase(job_id);
}

absl::Status RunRecords::Remove(const std::string& job_id) {
  Close(job_id);
  if (!IsJobId(job_id)) return absl::OkStatus();
  return RemoveTree(JoinPath(dir_, job_id));
}

}  // namespace ft
