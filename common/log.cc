// SPDX-License-Identifier: Apache-2.0

#include "common/log.h"

#include <unistd.h>

#include <atomic>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "common/file.h"

namespace ft {
namespace {

std::atomic<LogSeverity> least_severity{LogSeverity::kInfo};

bool NeedsQuotes(absl::string_view value) {
  if (value.empty()) return true;
  for (const char c : value) {
    if (static_cast<unsigned char>(c) <= ' ' || c == '"' || c == '=' ||
        c == '\\' || c == 0x7F) {
      return true;
    }
  }
  return false;
}

}  // namespace

void SetLogLevel(LogSeverity least) { least_severity = least; }

std::string LogText(LogSeverity severity, absl::Time now,
                    absl::string_view component, absl::string_view event,
                    std::initializer_list<LogField> fields) {
  static constexpr char kLetters[] = {'D', 'I', 'W', 'E'};
  std::string line = absl::StrCat(
      std::string(1, kLetters[static_cast<int>(severity)]), " ",
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", now, absl::UTCTimeZone()), " ",
      component, " ", event);
  for (const LogField& field : fields) {
    absl::StrAppend(&line, " ", field.key(), "=");
    if (NeedsQuotes(field.value())) {
      absl::StrAppend(&line, "\"", absl::Utf8SafeCEscape(field.value()), "\"");
    } else {
      absl::StrAppend(&line, field.value());
    }
  }
  return line;
}

void Log(LogSeverity severity, absl::string_view component,
         absl::string_view event, std::initializer_list<LogField> fields) {
  if (severity < least_severity.load()) return;
  // One write a line: the kernel keeps lines of several threads apart.
  const std::string line =
      LogText(severity, absl::Now(), component, event, fields) + "\n";
  WriteAll(STDERR_FILENO, line).IgnoreError();  // There is no better place.
}

}  // namespace ft
