// SPDX-License-Identifier: Apache-2.0

#include "coordinator/sqlite_job_store.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/failpoint.h"
#include "common/status.h"
#include "coordinator/job_state.h"
#include "coordinator/proto_time.h"
#include "coordinator/reasons.h"
#include "coordinator/sqlite_schema.h"

namespace ft {
namespace {

absl::Status Locked(const std::string& dir) {
  return absl::FailedPreconditionError(
      absl::StrCat(dir, "/lock: another ft-coordinator holds this store"));
}

absl::Status Parse(const std::string& bytes, google::protobuf::Message& into,
                   absl::string_view what) {
  if (into.ParseFromString(bytes)) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("store: ", what, " does not parse"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteJobStore>> SqliteJobStore::Open(
    const std::string& dir, Options options) {
  FT_RETURN_IF_ERROR(MakeDirs(dir, 0700));
  const std::string lock_path = JoinPath(dir, "lock");
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.is_open()) return ErrnoStatus(errno, lock_path);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return Locked(dir);

  std::unique_ptr<SqliteJobStore> store(
      new SqliteJobStore(dir, std::move(lock)));
  const std::string path = JoinPath(dir, "ft.db");
  FT_ASSIGN_OR_RETURN(store->writer_,
                      SqliteDb::Open(path, {.read_only = false}), path);
  SqliteDb& db = *store->writer_;
  // The first statement that reads the file: it finds what is no database.
  FT_RETURN_IF_ERROR(db.Exec("PRAGMA journal_mode = WAL"), path);
  FT_RETURN_IF_ERROR(db.Exec("PRAGMA synchronous = FULL"));
  FT_RETURN_IF_ERROR(MigrateSchema(db, dir, kNewestSchema), path);
  FT_RETURN_IF_ERROR(store->TakeOver(), path);
  FT_RETURN_IF_ERROR(SyncDir(dir));
  if (options.max_pages > 0) {
    FT_RETURN_IF_ERROR(
        db.Exec(absl::StrCat("PRAGMA max_page_count = ", options.max_pages)));
  }
  absl::MutexLock hold(&store->mutex_);
  FT_ASSIGN_OR_RETURN(store->reader_, SqliteDb::Open(path, {.read_only = true}),
                      path);
  return store;
}

absl::Status SqliteJobStore::TakeOver() {
  SqliteDb& db = *writer_;
  FT_RETURN_IF_ERROR(db.Exec("BEGIN IMMEDIATE"));
  FT_ASSIGN_OR_RETURN(const int64_t before, MetaInt(db, "incarnation"));
  incarnation_ = before + 1;
  FT_RETURN_IF_ERROR(SetMetaInt(db, "incarnation", incarnation_));
  {
    FT_ASSIGN_OR_RETURN(SqlStatement key,
                        db.Prepare("INSERT OR IGNORE INTO meta(key, value) "
                                   "VALUES('cluster_key', ?)"));
    FT_RETURN_IF_ERROR(key.Blob(RandomBytes(32)).Run());
  }
  return db.Exec("COMMIT");
}

absl::StatusOr<Snapshot> SqliteJobStore::Load() {
  SqliteDb& db = *writer_;
  Snapshot snapshot;
  snapshot.incarnation = incarnation_;
  FT_ASSIGN_OR_RETURN(const int64_t last_epoch, MetaInt(db, "last_epoch"));
  snapshot.last_epoch = static_cast<uint64_t>(last_epoch);
  FT_ASSIGN_OR_RETURN(
      SqlStatement key,
      db.Prepare("SELECT value FROM meta WHERE key = 'cluster_key'"));
  FT_RETURN_IF_ERROR(key.Step().status());
  snapshot.cluster_key = key.BytesAt(0);
  FT_RETURN_IF_ERROR(LoadJobs(snapshot));
  FT_RETURN_IF_ERROR(LoadArtifacts(snapshot));
  FT_RETURN_IF_ERROR(LoadWorkers(snapshot));
  FT_ASSIGN_OR_RETURN(
      SqlStatement marks,
      db.Prepare("SELECT epoch, worker_id, seq FROM spool_marks"));
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool found, marks.Step());
    if (!found) return snapshot;
    snapshot.spool_marks.push_back({static_cast<uint64_t>(marks.IntAt(0)),
                                    marks.BytesAt(1), marks.IntAt(2)});
  }
}

absl::Status SqliteJobStore::LoadJobs(Snapshot& snapshot) {
  SqliteDb& db = *writer_;
  std::vector<std::string> live;
  FT_ASSIGN_OR_RETURN(
      SqlStatement jobs,
      db.Prepare("SELECT job_id, state, ended_us IS NULL, submit_seq, etag "
                 "FROM jobs"));
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool found, jobs.Step());
    if (!found) break;
    snapshot.last_submit_seq =
        std::max(snapshot.last_submit_seq, jobs.IntAt(3));
    if (jobs.IntAt(2) != 0) {
      live.push_back(jobs.BytesAt(0));
    } else {
      snapshot.ended.push_back(
          {.job_id = jobs.BytesAt(0),
           .state = static_cast<v1::JobState>(jobs.IntAt(1)),
           .etag = jobs.IntAt(4)});
    }
  }
  for (const std::string& job_id : live) {
    Snapshot::LiveJob& row = snapshot.live.emplace_back();
    FT_ASSIGN_OR_RETURN(row.job, GetJob(job_id));
    FT_ASSIGN_OR_RETURN(row.last_event_seq, LastEventSeq(job_id));
  }
  return absl::OkStatus();
}

absl::Status SqliteJobStore::LoadArtifacts(Snapshot& snapshot) {
  FT_ASSIGN_OR_RETURN(
      SqlStatement artifacts,
      writer_->Prepare("SELECT body, files_sha256 FROM artifacts"));
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool found, artifacts.Step());
    if (!found) return absl::OkStatus();
    ArtifactRow& row = snapshot.artifacts.emplace_back();
    FT_RETURN_IF_ERROR(Parse(artifacts.BytesAt(0), row.artifact, "artifact"));
    row.files_sha256 = artifacts.BytesAt(1);
  }
}

absl::Status SqliteJobStore::LoadWorkers(Snapshot& snapshot) {
  FT_ASSIGN_OR_RETURN(SqlStatement workers,
                      writer_->Prepare("SELECT worker_id, body FROM workers"));
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool found, workers.Step());
    if (!found) return absl::OkStatus();
    Snapshot::Worker& row = snapshot.workers.emplace_back();
    row.worker_id = workers.BytesAt(0);
    FT_RETURN_IF_ERROR(Parse(workers.BytesAt(1), row.marks, "worker"));
  }
}

// --- Writing -----------------------------------------------------------------

absl::Status SqliteJobStore::Commit(std::span<const Decision> batch) {
  FT_RETURN_IF_ERROR(writer_->Exec("BEGIN IMMEDIATE"));
  absl::Status status = CheckIncarnation();
  if (status.ok()) status = WriteBatch(batch);
  Pass(Failpoint::kCommitWritten);
  if (status.ok()) status = writer_->Exec("COMMIT");
  if (!status.ok()) {
    // SQLite has rolled back by itself after some errors.
    writer_->Exec("ROLLBACK").IgnoreError();
    return status;
  }
  return writer_->ShortenLog();
}

absl::Status SqliteJobStore::CheckIncarnation() {
  FT_ASSIGN_OR_RETURN(const int64_t stored, MetaInt(*writer_, "incarnation"));
  if (stored == incarnation_) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the store was taken over by incarnation ", stored,
                   "; this is ", incarnation_));
}

absl::Status SqliteJobStore::WriteBatch(std::span<const Decision> batch) {
  for (const Decision& decision : batch) {
    for (const Record& record : decision.records) {
      FT_RETURN_IF_ERROR(
          std::visit([this](const auto& what) { return Write(what); }, record));
    }
  }
  return absl::OkStatus();
}

absl::Status SqliteJobStore::Write(const PutJob& put) {
  const v1::Job& job = put.job;
  FT_ASSIGN_OR_RETURN(
      SqlStatement insert,
      writer_->Prepare(
          "INSERT INTO jobs(job_id, project, queue, name, state, priority, "
          "submit_seq, etag, spec, status, ended_us) "
          "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(job_id) DO "
          "UPDATE SET state = excluded.state, priority = excluded.priority, "
          "etag = excluded.etag, spec = excluded.spec, "
          "status = excluded.status, ended_us = excluded.ended_us"));
  v1::JobStatus status = job.status();
  status.clear_attempts();  // They have rows of their own.
  std::optional<int64_t> ended_us;
  if (IsTerminal(status.state())) {
    ended_us = absl::ToUnixMicros(FromProto(status.ended()));
  }
  return insert.Text(job.job_id())
      .Text(job.spec().project())
      .Text(job.spec().queue())
      .Text(job.spec().name())
      .Int(status.state())
      .Int(job.spec().priority())
      .Int(job.submit_seq())
      .Int(job.etag())
      .Blob(job.spec().SerializeAsString())
      .Blob(status.SerializeAsString())
      .OptionalInt(ended_us)
      .Run();
}

absl::Status SqliteJobStore::Write(const EraseJob& erase) {
  for (const char* sql : {"DELETE FROM spool_marks WHERE epoch IN "
                          "(SELECT epoch FROM attempts WHERE job_id = ?)",
                          "DELETE FROM attempts WHERE job_id = ?",
                          "DELETE FROM events WHERE job_id = ?",
                          "DELETE FROM jobs WHERE job_id = ?"}) {
    FT_ASSIGN_OR_RETURN(SqlStatement remove, writer_->Prepare(sql));
    FT_RETURN_IF_ERROR(remove.Text(erase.job_id).Run());
  }
  return absl::OkStatus();
}

absl::Status SqliteJobStore::Write(const PutAttempt& put) {
  const v1::Attempt& attempt = put.attempt;
  FT_ASSIGN_OR_RETURN(
      SqlStatement insert,
      writer_->Prepare(
          "INSERT INTO attempts(epoch, job_id, number, state, cause, "
          "first_step, last_step, body) VALUES(?, ?, ?, ?, ?, ?, ?, ?) "
          "ON CONFLICT(epoch) DO UPDATE SET state = excluded.state, "
          "cause = excluded.cause, first_step = excluded.first_step, "
          "last_step = excluded.last_step, body = excluded.body"));
  std::optional<int64_t> cause;
  if (attempt.state() == v1::ATTEMPT_STATE_ENDED) cause = attempt.cause();
  return insert.Int(static_cast<int64_t>(attempt.epoch()))
      .Text(put.job_id)
      .Int(attempt.number())
      .Int(attempt.state())
      .OptionalInt(cause)
      .Int(attempt.first_step())
      .Int(attempt.last_step())
      .Blob(attempt.SerializeAsString())
      .Run();
}

absl::Status SqliteJobStore::Write(const AppendEvent& append) {
  const v1::Event& event = append.event;
  FT_ASSIGN_OR_RETURN(
      SqlStatement insert,
      writer_->Prepare("INSERT INTO events(at_us, kind, job_id, job_seq, "
                       "epoch, actor, body) VALUES(?, ?, ?, ?, ?, ?, ?)"));
  return insert.Int(absl::ToUnixMicros(FromProto(event.at())))
      .Int(event.kind())
      .Text(event.job_id())
      .Int(event.job_seq())
      .Int(static_cast<int64_t>(event.epoch()))
      .Text(append.actor)
      .Blob(event.SerializeAsString())
      .Run();
}

absl::Status SqliteJobStore::Write(const PutReply& put) {
  const RequestKey& key = put.reply.key;
  FT_ASSIGN_OR_RETURN(
      SqlStatement insert,
      writer_->Prepare("INSERT INTO requests(principal, request_id, method, "
                       "body_sha256, reply, at_us) VALUES(?, ?, ?, ?, ?, ?)"));
  return insert.Text(key.principal)
      .Text(key.request_id)
      .Int(static_cast<int64_t>(key.method))
      .Blob(key.body_sha256)
      .Blob(put.reply.reply)
      .Int(absl::ToUnixMicros(put.at))
      .Run();
}

absl::Status SqliteJobStore::Write(const PutLastEpoch& put) {
  return SetMetaInt(*writer_, "last_epoch", static_cast<int64_t>(put.epoch));
}

absl::Status SqliteJobStore::Write(const PutSpoolMark& put) {
  FT_ASSIGN_OR_RETURN(
      SqlStatement insert,
      writer_->Prepare(
          "INSERT INTO spool_marks(epoch, worker_id, seq) VALUES(?, ?, ?) "
          "ON CONFLICT(epoch, worker_id) DO UPDATE SET seq = excluded.seq"));
  return insert.Int(static_cast<int64_t>(put.epoch))
      .Text(put.worker_id)
      .Int(put.seq)
      .Run();
}

absl::Status SqliteJobStore::Write(const PutArtifact& put) {
  const v1::Artifact& artifact = put.row.artifact;
  FT_ASSIGN_OR_RETURN(
      SqlStatement insert,
      writer_->Prepare(
          "INSERT OR REPLACE INTO artifacts(name, kind, manifest_sha256, "
          "files_sha256, job_id, epoch, step, bytes, pinned, expires_us, body) "
          "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  std::optional<int64_t> expires_us;
  if (artifact.has_expires()) {
    expires_us = absl::ToUnixMicros(FromProto(artifact.expires()));
  }
  return insert.Text(artifact.name())
      .Int(artifact.kind())
      .Text(artifact.manifest_sha256())
      .Text(put.row.files_sha256)
      .Text(artifact.manifest().job_id())
      .Int(static_cast<int64_t>(artifact.manifest().epoch()))
      .Int(artifact.manifest().step())
      .Int(artifact.bytes())
      .Int(artifact.pinned())
      .OptionalInt(expires_us)
      .Blob(artifact.SerializeAsString())
      .Run();
}

absl::Status SqliteJobStore::Write(const EraseArtifact& erase) {
  FT_ASSIGN_OR_RETURN(SqlStatement remove,
                      writer_->Prepare("DELETE FROM artifacts WHERE name = ?"));
  return remove.Text(erase.name).Run();
}

absl::Status SqliteJobStore::Write(const PutWorker& put) {
  FT_ASSIGN_OR_RETURN(
      SqlStatement insert,
      writer_->Prepare("INSERT OR REPLACE INTO workers(worker_id, body) "
                       "VALUES(?, ?)"));
  return insert.Text(put.worker_id).Blob(put.marks.SerializeAsString()).Run();
}

// Each row's digest goes over the one before it, so that none can be changed or
// taken out unseen.
absl::Status SqliteJobStore::Write(const AppendAudit& append) {
  FT_ASSIGN_OR_RETURN(
      SqlStatement last,
      writer_->Prepare(
          "SELECT chain_sha256 FROM audit ORDER BY seq DESC LIMIT 1"));
  FT_ASSIGN_OR_RETURN(const bool found, last.Step());
  Sha256 chain;
  if (found) chain.Update(last.BytesAt(0));
  const int64_t at_us = absl::ToUnixMicros(append.at);
  for (const std::string& part :
       {absl::StrCat(at_us), append.principal, append.method, append.resource,
        append.detail}) {
    chain.Update(absl::StrCat(part.size(), ":", part));
  }
  FT_ASSIGN_OR_RETURN(
      SqlStatement insert,
      writer_->Prepare("INSERT INTO audit(at_us, principal, method, resource, "
                       "detail, chain_sha256) VALUES(?, ?, ?, ?, ?, ?)"));
  return insert.Int(at_us)
      .Text(append.principal)
      .Text(append.method)
      .Text(append.resource)
      .Text(append.detail)
      .Blob(chain.Finish())
      .Run();
}

absl::Status SqliteJobStore::PruneReplies(absl::Time before) {
  FT_ASSIGN_OR_RETURN(SqlStatement prune,
                      writer_->Prepare("DELETE FROM requests WHERE at_us < ?"));
  return prune.Int(absl::ToUnixMicros(before)).Run();
}

absl::StatusOr<int64_t> SqliteJobStore::FreeBytes() {
  return ft::FreeBytes(dir_);
}

// --- Reading -----------------------------------------------------------------

namespace {

constexpr char kJobColumns[] = "job_id, submit_seq, etag, spec, status";

absl::StatusOr<v1::Job> JobOfRow(SqliteDb& db, const SqlStatement& row) {
  v1::Job job;
  job.set_job_id(row.BytesAt(0));
  job.set_submit_seq(row.IntAt(1));
  job.set_etag(row.IntAt(2));
  FT_RETURN_IF_ERROR(Parse(row.BytesAt(3), *job.mutable_spec(), "job spec"));
  FT_RETURN_IF_ERROR(
      Parse(row.BytesAt(4), *job.mutable_status(), "job status"));
  FT_ASSIGN_OR_RETURN(
      SqlStatement attempts,
      db.Prepare("SELECT body FROM attempts WHERE job_id = ? ORDER BY number"));
  attempts.Text(job.job_id());
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool found, attempts.Step());
    if (!found) return job;
    FT_RETURN_IF_ERROR(Parse(attempts.BytesAt(0),
                             *job.mutable_status()->add_attempts(), "attempt"));
  }
}

absl::StatusOr<v1::Artifact> ArtifactOf(SqlStatement select,
                                        absl::string_view what) {
  FT_ASSIGN_OR_RETURN(const bool found, select.Text(what).Step());
  if (!found) {
    return ReasonError(absl::StatusCode::kNotFound, v1::REASON_NOT_FOUND,
                       absl::StrCat("no artifact ", what));
  }
  v1::Artifact artifact;
  FT_RETURN_IF_ERROR(Parse(select.BytesAt(0), artifact, "artifact"));
  return artifact;
}

}  // namespace

absl::StatusOr<v1::Job> SqliteJobStore::GetJob(absl::string_view job_id) {
  absl::MutexLock hold(&mutex_);
  static const std::string* const sql = new std::string(
      absl::StrCat("SELECT ", kJobColumns, " FROM jobs WHERE job_id = ?"));
  FT_ASSIGN_OR_RETURN(SqlStatement select, reader_->Prepare(sql->c_str()));
  FT_ASSIGN_OR_RETURN(const bool found, select.Text(job_id).Step());
  if (!found) {
    return ReasonError(absl::StatusCode::kNotFound, v1::REASON_NOT_FOUND,
                       absl::StrCat("no job ", job_id));
  }
  return JobOfRow(*reader_, select);
}

absl::StatusOr<std::vector<v1::Job>> SqliteJobStore::ListJobs(
    const JobQuery& query) {
  absl::MutexLock hold(&mutex_);
  // State and name are filtered here: their share of the rows is large.
  static const std::string* const sql = new std::string(
      absl::StrCat("SELECT ", kJobColumns,
                   ", state, name FROM jobs WHERE submit_seq < ? "
                   "ORDER BY submit_seq DESC"));
  FT_ASSIGN_OR_RETURN(SqlStatement select, reader_->Prepare(sql->c_str()));
  select.Int(query.before_submit_seq > 0 ? query.before_submit_seq : INT64_MAX);
  const std::set<int64_t> states(query.states.begin(), query.states.end());
  std::vector<v1::Job> jobs;
  while (std::cmp_less(jobs.size(), query.page_size)) {
    FT_ASSIGN_OR_RETURN(const bool found, select.Step());
    if (!found) break;
    if (!states.empty() && !states.contains(select.IntAt(5))) continue;
    if (!query.name.empty() && select.BytesAt(6) != query.name) continue;
    FT_ASSIGN_OR_RETURN(v1::Job job, JobOfRow(*reader_, select));
    jobs.push_back(std::move(job));
  }
  return jobs;
}

absl::StatusOr<std::vector<v1::Event>> SqliteJobStore::ListEvents(
    absl::string_view job_id, int64_t after_seq, int limit) {
  absl::MutexLock hold(&mutex_);
  FT_ASSIGN_OR_RETURN(
      SqlStatement select,
      reader_->Prepare("SELECT body FROM events WHERE job_id = ? AND "
                       "job_seq > ? ORDER BY job_seq LIMIT ?"));
  select.Text(job_id).Int(after_seq).Int(limit);
  std::vector<v1::Event> events;
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool found, select.Step());
    if (!found) return events;
    FT_RETURN_IF_ERROR(
        Parse(select.BytesAt(0), events.emplace_back(), "event"));
  }
}

absl::StatusOr<int64_t> SqliteJobStore::LastEventSeq(absl::string_view job_id) {
  absl::MutexLock hold(&mutex_);
  FT_ASSIGN_OR_RETURN(
      SqlStatement select,
      reader_->Prepare("SELECT max(job_seq) FROM events WHERE job_id = ?"));
  FT_RETURN_IF_ERROR(select.Text(job_id).Step().status());
  return select.IntAt(0);
}

absl::StatusOr<std::optional<StoredReply>> SqliteJobStore::FindReply(
    absl::string_view principal, absl::string_view request_id) {
  absl::MutexLock hold(&mutex_);
  FT_ASSIGN_OR_RETURN(
      SqlStatement select,
      reader_->Prepare("SELECT method, body_sha256, reply FROM requests WHERE "
                       "principal = ? AND request_id = ?"));
  FT_ASSIGN_OR_RETURN(const bool found,
                      select.Text(principal).Text(request_id).Step());
  if (!found) return std::optional<StoredReply>();
  StoredReply reply;
  reply.key = RequestKey{.principal = std::string(principal),
                         .request_id = std::string(request_id),
                         .method = static_cast<Method>(select.IntAt(0)),
                         .body_sha256 = select.BytesAt(1)};
  reply.reply = select.BytesAt(2);
  return std::optional<StoredReply>(std::move(reply));
}

absl::StatusOr<v1::Artifact> SqliteJobStore::GetArtifact(
    absl::string_view name) {
  absl::MutexLock hold(&mutex_);
  FT_ASSIGN_OR_RETURN(
      SqlStatement select,
      reader_->Prepare("SELECT body FROM artifacts WHERE name = ?"));
  return ArtifactOf(std::move(select), name);
}

absl::StatusOr<v1::Artifact> SqliteJobStore::GetArtifactByManifest(
    absl::string_view manifest_sha256) {
  absl::MutexLock hold(&mutex_);
  FT_ASSIGN_OR_RETURN(
      SqlStatement select,
      reader_->Prepare("SELECT body FROM artifacts WHERE manifest_sha256 = ? "
                       "ORDER BY name LIMIT 1"));
  return ArtifactOf(std::move(select), manifest_sha256);
}

absl::StatusOr<std::vector<v1::Artifact>> SqliteJobStore::ListArtifacts(
    absl::string_view job_id, absl::string_view after_name, int limit) {
  absl::MutexLock hold(&mutex_);
  FT_ASSIGN_OR_RETURN(
      SqlStatement select,
      reader_->Prepare("SELECT body FROM artifacts WHERE name > ? AND "
                       "(?2 = '' OR job_id = ?2) ORDER BY name LIMIT ?3"));
  select.Text(after_name).Text(job_id).Int(limit);
  std::vector<v1::Artifact> artifacts;
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool found, select.Step());
    if (!found) return artifacts;
    FT_RETURN_IF_ERROR(
        Parse(select.BytesAt(0), artifacts.emplace_back(), "artifact"));
  }
}

absl::StatusOr<std::set<std::string>> SqliteJobStore::ReferencedBlobs() {
  absl::MutexLock hold(&mutex_);
  std::set<std::string> blobs;
  {
    FT_ASSIGN_OR_RETURN(SqlStatement select,
                        reader_->Prepare("SELECT body FROM artifacts"));
    while (true) {
      FT_ASSIGN_OR_RETURN(const bool found, select.Step());
      if (!found) break;
      v1::Artifact artifact;
      FT_RETURN_IF_ERROR(Parse(select.BytesAt(0), artifact, "artifact"));
      blobs.insert(artifact.manifest_sha256());
      for (const v1::FileEntry& file : artifact.manifest().files()) {
        blobs.insert(file.sha256());
      }
    }
  }
  FT_ASSIGN_OR_RETURN(SqlStatement select,
                      reader_->Prepare("SELECT spec FROM jobs"));
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool found, select.Step());
    if (!found) return blobs;
    v1::JobSpec spec;
    FT_RETURN_IF_ERROR(Parse(select.BytesAt(0), spec, "job spec"));
    for (const v1::Dataset& dataset : spec.data().train()) {
      blobs.insert(dataset.sha256());
    }
    blobs.insert(spec.data().validation().sha256());
  }
}

}  // namespace ft
