// SPDX-License-Identifier: Apache-2.0
//
// A thin wall around SQLite: statements that bind and read in order, and its
// result codes as absl::Status.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct sqlite3;
struct sqlite3_stmt;

namespace ft {

// One use of a prepared statement; reset when it goes. Arguments are bound in
// order, columns read in order.
class SqlStatement {
 public:
  explicit SqlStatement(sqlite3_stmt* statement) : statement_(statement) {}
  ~SqlStatement();
  SqlStatement(SqlStatement&& other) noexcept
      : statement_(other.statement_), next_(other.next_) {
    other.statement_ = nullptr;
  }
  SqlStatement& operator=(SqlStatement&&) = delete;

  SqlStatement& Int(int64_t value);
  SqlStatement& Text(absl::string_view value);
  SqlStatement& Blob(absl::string_view value);
  SqlStatement& Null();
  SqlStatement& OptionalInt(std::optional<int64_t> value);

  // Whether there is a row.
  absl::StatusOr<bool> Step();
  // Runs to the end. REQUIRES: it gives no rows.
  absl::Status Run();

  int64_t IntAt(int column) const;
  std::string BytesAt(int column) const;

 private:
  sqlite3_stmt* statement_;
  int next_ = 1;
};

// A connection. Not thread-safe.
class SqliteDb {
 public:
  struct Options {
    bool read_only = false;
  };

  static absl::StatusOr<std::unique_ptr<SqliteDb>> Open(const std::string& path,
                                                        Options options);
  ~SqliteDb();

  // A statement, prepared once per text.
  absl::StatusOr<SqlStatement> Prepare(const char* sql);

  // One or several statements without arguments or rows.
  absl::Status Exec(const std::string& sql);

  // Copies a long write-ahead log into the database. SQLite would do so by
  // itself after a commit, but keep a failed fsync to itself, and the next one
  // would succeed. An error: the disk cannot be trusted any more.
  absl::Status ShortenLog();

 private:
  explicit SqliteDb(sqlite3* db) : db_(db) {}

  sqlite3* db_;
  int log_pages_ = 0;
  std::map<const char*, sqlite3_stmt*> prepared_;
};

}  // namespace ft
