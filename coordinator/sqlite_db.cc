// SPDX-License-Identifier: Apache-2.0

#include "coordinator/sqlite_db.h"

#include <sqlite3.h>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace ft {
namespace {

absl::Status SqlError(sqlite3* db, absl::string_view what) {
  const int code = sqlite3_errcode(db);
  const std::string message =
      absl::StrCat("sqlite: ", what, ": ", sqlite3_errmsg(db));
  // The shared index of the log is a file as well.
  const bool no_index = sqlite3_extended_errcode(db) == SQLITE_IOERR_SHMSIZE;
  if ((code & 0xff) == SQLITE_FULL || no_index) {
    return absl::ResourceExhaustedError(message);
  }
  if ((code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB) {
    return absl::DataLossError(message);
  }
  return absl::InternalError(message);
}

// Pages of the write-ahead log from which on it is copied into the database.
constexpr int kLongLog = 1000;

}  // namespace

SqlStatement::~SqlStatement() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

SqlStatement& SqlStatement::Int(int64_t value) {
  sqlite3_bind_int64(statement_, next_++, value);
  return *this;
}

SqlStatement& SqlStatement::Text(absl::string_view value) {
  sqlite3_bind_text64(statement_, next_++, value.data(), value.size(),
                      SQLITE_TRANSIENT, SQLITE_UTF8);
  return *this;
}

SqlStatement& SqlStatement::Blob(absl::string_view value) {
  // A null pointer would bind NULL.
  sqlite3_bind_blob64(statement_, next_++, value.empty() ? "" : value.data(),
                      value.size(), SQLITE_TRANSIENT);
  return *this;
}

SqlStatement& SqlStatement::Null() {
  sqlite3_bind_null(statement_, next_++);
  return *this;
}

SqlStatement& SqlStatement::OptionalInt(std::optional<int64_t> value) {
  return value.has_value() ? Int(*value) : Null();
}

absl::StatusOr<bool> SqlStatement::Step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return SqlError(sqlite3_db_handle(statement_), sqlite3_sql(statement_));
}

absl::Status SqlStatement::Run() { return Step().status(); }

int64_t SqlStatement::IntAt(int column) const {
  return sqlite3_column_int64(statement_, column);
}

std::string SqlStatement::BytesAt(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  if (bytes == nullptr || size == 0) return "";
  return std::string(static_cast<const char*>(bytes), size);
}

absl::StatusOr<std::unique_ptr<SqliteDb>> SqliteDb::Open(
    const std::string& path, Options options) {
  sqlite3* handle = nullptr;
  const int flags =
      (options.read_only ? SQLITE_OPEN_READONLY
                         : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) |
      SQLITE_OPEN_NOMUTEX;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  std::unique_ptr<SqliteDb> db(new SqliteDb(handle));
  if (code != SQLITE_OK) return SqlError(handle, absl::StrCat("open ", path));
  sqlite3_busy_timeout(handle, 5000);
  sqlite3_wal_hook(
      handle,
      [](void* self, sqlite3*, const char*, int pages) {
        static_cast<SqliteDb*>(self)->log_pages_ = pages;
        return SQLITE_OK;
      },
      db.get());
  return db;
}

absl::Status SqliteDb::ShortenLog() {
  if (log_pages_ < kLongLog) return absl::OkStatus();
  const int code = sqlite3_wal_checkpoint_v2(
      db_, nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  const int kind = code & 0xff;
  // A reader, or too little space: the log grows on until another time.
  if (kind == SQLITE_OK || kind == SQLITE_BUSY || kind == SQLITE_FULL) {
    return absl::OkStatus();
  }
  return SqlError(db_, "copy the log into the database");
}

SqliteDb::~SqliteDb() {
  for (const auto& [sql, statement] : prepared_) sqlite3_finalize(statement);
  sqlite3_close(db_);
}

absl::StatusOr<SqlStatement> SqliteDb::Prepare(const char* sql) {
  sqlite3_stmt*& statement = prepared_[sql];
  if (statement == nullptr &&
      sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement,
                         nullptr) != SQLITE_OK) {
    return SqlError(db_, sql);
  }
  return SqlStatement(statement);
}

absl::Status SqliteDb::Exec(const std::string& sql) {
  if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    return SqlError(db_, sql.substr(0, 60));
  }
  return absl::OkStatus();
}

}  // namespace ft
