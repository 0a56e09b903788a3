// SPDX-License-Identifier: Apache-2.0
//
// Logs for people and machines: one event a line on stderr,
//
//   W 2026-01-14T09:44:10.003Z coordinator attempt ended job=job-7q3k epoch=42
//
// The event is a fixed phrase without values; ids keep their keys (job, epoch,
// worker, rank, step). INFO is what an operator wants on a good day, a WARN
// says what happens next, an ERROR what to do.

#pragma once

#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ft {

enum class LogSeverity { kDebug, kInfo, kWarn, kError };

// A value that must never be seen: prints "***".
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string value) : value_(std::move(value)) {}
  const std::string& reveal() const { return value_; }

 private:
  std::string value_;
};

// One `key=value`; the value is quoted if it needs to be.
class LogField {
 public:
  LogField(absl::string_view key, const absl::AlphaNum& value)
      : key_(key), value_(value.Piece()) {}
  LogField(absl::string_view key, const Secret&) : key_(key), value_("***") {}

  const std::string& key() const { return key_; }
  const std::string& value() const { return value_; }

 private:
  std::string key_;
  std::string value_;
};

// Writes one line. Thread-safe; lines never mix.
void Log(LogSeverity severity, absl::string_view component,
         absl::string_view event, std::initializer_list<LogField> fields = {});

// The line that Log would write at `now`, without its end.
std::string LogText(LogSeverity severity, absl::Time now,
                    absl::string_view component, absl::string_view event,
                    std::initializer_list<LogField> fields);

// Lines below are dropped. Default: kInfo.
void SetLogLevel(LogSeverity least);

}  // namespace ft
