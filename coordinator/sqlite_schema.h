// SPDX-License-Identifier: Apache-2.0
//
// The schema of the store and its migrations: numbered, forward only, each in
// one transaction, after a copy of the file.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/sqlite_db.h"

namespace ft {

inline constexpr int64_t kNewestSchema = 2;

// Brings the store in `dir` to schema `target`; less than kNewestSchema: only
// for tests of migrations. The copy is `dir`/ft.db.schemaN.
// FAILED_PRECONDITION: its schema is newer than that.
absl::Status MigrateSchema(SqliteDb& db, const std::string& dir,
                           int64_t target);

// Numbers of the table `meta`; 0: not there.
absl::StatusOr<int64_t> MetaInt(SqliteDb& db, absl::string_view key);
absl::Status SetMetaInt(SqliteDb& db, absl::string_view key, int64_t value);

}  // namespace ft
