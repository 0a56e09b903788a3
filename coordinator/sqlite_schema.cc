// SPDX-License-Identifier: Apache-2.0

#include "coordinator/sqlite_schema.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {
namespace {

// Numbered from 1, forward only; each runs in one transaction. Never edit one
// that was released: add the next.
constexpr const char* kMigrations[] = {
    R"sql(
CREATE TABLE jobs(job_id TEXT PRIMARY KEY, project TEXT NOT NULL,
  queue TEXT NOT NULL, name TEXT NOT NULL, state INTEGER NOT NULL,
  priority INTEGER NOT NULL, submit_seq INTEGER NOT NULL,
  etag INTEGER NOT NULL, spec BLOB NOT NULL, status BLOB NOT NULL,
  ended_us INTEGER) STRICT;
CREATE INDEX jobs_live ON jobs(submit_seq) WHERE ended_us IS NULL;
CREATE INDEX jobs_listed ON jobs(submit_seq DESC);
CREATE TABLE attempts(epoch INTEGER PRIMARY KEY, job_id TEXT NOT NULL,
  number INTEGER NOT NULL, state INTEGER NOT NULL, cause INTEGER,
  first_step INTEGER, last_step INTEGER, body BLOB NOT NULL) STRICT;
CREATE INDEX attempts_of_job ON attempts(job_id, number);
CREATE UNIQUE INDEX one_live_attempt ON attempts(job_id) WHERE cause IS NULL;
CREATE TABLE events(seq INTEGER PRIMARY KEY, at_us INTEGER NOT NULL,
  kind INTEGER NOT NULL, job_id TEXT, job_seq INTEGER, epoch INTEGER,
  actor TEXT NOT NULL, body BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX events_of_job ON events(job_id, job_seq);
CREATE TABLE requests(principal TEXT NOT NULL, request_id TEXT NOT NULL,
  method INTEGER NOT NULL, body_sha256 BLOB NOT NULL, reply BLOB NOT NULL,
  at_us INTEGER NOT NULL, PRIMARY KEY(principal, request_id)) STRICT;
CREATE INDEX requests_by_age ON requests(at_us);
CREATE TABLE spool_marks(epoch INTEGER NOT NULL, worker_id TEXT NOT NULL,
  seq INTEGER NOT NULL, PRIMARY KEY(epoch, worker_id)) STRICT;
CREATE TABLE artifacts(name TEXT PRIMARY KEY, kind INTEGER NOT NULL,
  manifest_sha256 TEXT NOT NULL, files_sha256 TEXT NOT NULL,
  job_id TEXT NOT NULL, epoch INTEGER NOT NULL, step INTEGER NOT NULL,
  bytes INTEGER NOT NULL, pinned INTEGER NOT NULL, expires_us INTEGER,
  body BLOB NOT NULL) STRICT;
CREATE INDEX artifacts_of_job ON artifacts(job_id);
CREATE INDEX artifacts_by_manifest ON artifacts(manifest_sha256);
)sql",
    R"sql(
CREATE TABLE workers(worker_id TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE audit(seq INTEGER PRIMARY KEY, at_us INTEGER NOT NULL,
  principal TEXT NOT NULL, method TEXT NOT NULL, resource TEXT NOT NULL,
  detail TEXT NOT NULL, chain_sha256 BLOB NOT NULL) STRICT;
)sql",
};
static_assert(std::size(kMigrations) == kNewestSchema);

}  // namespace

absl::StatusOr<int64_t> MetaInt(SqliteDb& db, absl::string_view key) {
  FT_ASSIGN_OR_RETURN(SqlStatement select,
                      db.Prepare("SELECT value FROM meta WHERE key = ?"));
  FT_ASSIGN_OR_RETURN(const bool found, select.Text(key).Step());
  return found ? select.IntAt(0) : 0;
}

absl::Status SetMetaInt(SqliteDb& db, absl::string_view key, int64_t value) {
  FT_ASSIGN_OR_RETURN(
      SqlStatement put,
      db.Prepare("INSERT INTO meta(key, value) VALUES(?, ?) "
                 "ON CONFLICT(key) DO UPDATE SET value = excluded.value"));
  return put.Text(key).Int(value).Run();
}

absl::Status MigrateSchema(SqliteDb& db, const std::string& dir,
                           int64_t target) {
  FT_RETURN_IF_ERROR(db.Exec(
      "CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value ANY NOT "
      "NULL) STRICT"));
  FT_ASSIGN_OR_RETURN(int64_t schema, MetaInt(db, "schema"));
  if (schema > target) {
    return absl::FailedPreconditionError(
        absl::StrCat("the store has schema ", schema, ", this program knows ",
                     target, "; run a newer ft-coordinator"));
  }
  if (schema > 0 && schema < target) {
    const std::string backup =
        JoinPath(dir, absl::StrCat("ft.db.schema", schema));
    FT_RETURN_IF_ERROR(RemoveFile(backup));
    FT_RETURN_IF_ERROR(db.Exec(absl::StrCat("VACUUM INTO '", backup, "'")),
                       "backup");
  }
  for (; schema < target; ++schema) {
    FT_RETURN_IF_ERROR(db.Exec("BEGIN IMMEDIATE"));
    FT_RETURN_IF_ERROR(db.Exec(kMigrations[schema]), "migration ", schema + 1);
    FT_RETURN_IF_ERROR(SetMetaInt(db, "schema", schema + 1));
    FT_RETURN_IF_ERROR(db.Exec("COMMIT"));
  }
  return absl::OkStatus();
}

}  // namespace ft
