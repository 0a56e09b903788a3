// SPDX-License-Identifier: Apache-2.0

#include "tests/testing/store_view.h"

#include "common/file.h"
#include "common/status.h"
#include "coordinator/segment_log.h"
#include "coordinator/sqlite_db.h"

namespace ft::testing {
namespace {

template <typename Message>
absl::Status Parse(const std::string& bytes, Message& into) {
  if (into.ParseFromString(bytes)) return absl::OkStatus();
  return absl::DataLossError("a message of the store does not parse");
}

// Calls `take` for each row.
template <typename Take>
absl::Status ForEachRow(SqliteDb& db, const char* sql, const Take& take) {
  FT_ASSIGN_OR_RETURN(SqlStatement rows, db.Prepare(sql), sql);
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool found, rows.Step());
    if (!found) return absl::OkStatus();
    FT_RETURN_IF_ERROR(take(rows));
  }
}

absl::Status ReadMeta(SqliteDb& db, StoreView& view) {
  const auto add_finding = [&](SqlStatement& row) {
    view.integrity += row.BytesAt(0);
    return absl::OkStatus();
  };
  const auto set_meta = [&](SqlStatement& row) {
    if (row.BytesAt(0) == "last_epoch") {
      view.last_epoch = static_cast<uint64_t>(row.IntAt(1));
    } else if (row.BytesAt(0) == "cluster_key") {
      view.cluster_key = row.BytesAt(1);
    }
    return absl::OkStatus();
  };
  FT_RETURN_IF_ERROR(ForEachRow(db, "PRAGMA integrity_check", add_finding));
  return ForEachRow(db, "SELECT key, value FROM meta", set_meta);
}

absl::Status ReadJobs(SqliteDb& db, StoreView& view) {
  const auto add_job = [&](SqlStatement& row) {
    StoreView::JobRow& job = view.jobs[row.BytesAt(0)];
    job.state = row.IntAt(1);
    job.has_ended = row.IntAt(2) != 0;
    FT_RETURN_IF_ERROR(Parse(row.BytesAt(3), job.spec));
    return Parse(row.BytesAt(4), job.status);
  };
  const auto add_attempt = [&](SqlStatement& row) {
    StoreView::AttemptRow& attempt =
        view.attempts[static_cast<uint64_t>(row.IntAt(0))];
    attempt.job_id = row.BytesAt(1);
    attempt.has_cause = row.IntAt(2) != 0;
    return Parse(row.BytesAt(3), attempt.attempt);
  };
  FT_RETURN_IF_ERROR(ForEachRow(
      db, "SELECT job_id, state, ended_us IS NOT NULL, spec, status FROM jobs",
      add_job));
  return ForEachRow(
      db, "SELECT epoch, job_id, cause IS NOT NULL, body FROM attempts",
      add_attempt);
}

absl::Status ReadEvents(SqliteDb& db, StoreView& view) {
  const auto add_event = [&](SqlStatement& row) {
    v1::Event event;
    FT_RETURN_IF_ERROR(Parse(row.BytesAt(2), event));
    if (event.job_id() != row.BytesAt(0) || event.job_seq() != row.IntAt(1)) {
      return absl::DataLossError("an event's columns and body differ");
    }
    view.events[event.job_id()].push_back(event);
    view.all_events.push_back(std::move(event));
    return absl::OkStatus();
  };
  return ForEachRow(db, "SELECT job_id, job_seq, body FROM events ORDER BY seq",
                    add_event);
}

absl::Status ReadArtifacts(SqliteDb& db, StoreView& view) {
  return ForEachRow(
      db, "SELECT name, body FROM artifacts", [&](SqlStatement& row) {
        return Parse(row.BytesAt(1), view.artifacts[row.BytesAt(0)]);
      });
}

absl::Status ReadReports(const std::string& data_dir, StoreView& view) {
  for (const auto& [job_id, job] : view.jobs) {
    const std::string path =
        JoinPath(data_dir, "jobs/" + job_id + "/metrics.seg");
    std::vector<v1::ReportRequest>& reports = view.reports[job_id];
    absl::Status parsed;
    const auto add_report = [&](absl::string_view record) {
      parsed = Parse(std::string(record), reports.emplace_back());
      return parsed.ok();
    };
    FT_RETURN_IF_ERROR(ReadSegment(path, 0, add_report).status());
    FT_RETURN_IF_ERROR(parsed, path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StoreView> ReadStore(const std::string& data_dir) {
  FT_ASSIGN_OR_RETURN(
      const std::unique_ptr<SqliteDb> db,
      SqliteDb::Open(JoinPath(data_dir, "state/ft.db"), {.read_only = true}));
  // One look: a coordinator that runs may commit between two statements.
  FT_RETURN_IF_ERROR(db->Exec("BEGIN"));
  StoreView view;
  FT_RETURN_IF_ERROR(ReadMeta(*db, view));
  FT_RETURN_IF_ERROR(ReadJobs(*db, view));
  FT_RETURN_IF_ERROR(ReadEvents(*db, view));
  FT_RETURN_IF_ERROR(ReadArtifacts(*db, view));
  FT_RETURN_IF_ERROR(ReadReports(data_dir, view));
  return view;
}

std::vector<std::string> ListBlobs(const std::string& data_dir) {
  std::vector<std::string> paths;
  const std::string root = JoinPath(data_dir, "blobs");
  for (const std::string& folder :
       ListDir(root).value_or(std::vector<std::string>())) {
    for (const std::string& name :
         ListDir(JoinPath(root, folder)).value_or(std::vector<std::string>())) {
      paths.push_back(JoinPath(JoinPath(root, folder), name));
    }
  }
  return paths;
}

std::string StateText(int64_t state) {
  const std::string name = v1::JobState_Name(static_cast<v1::JobState>(state));
  return name.substr(name.find("STATE_") + 6);
}

}  // namespace ft::testing
