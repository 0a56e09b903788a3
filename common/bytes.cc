// SPDX-License-Identifier: Apache-2.0

#include "common/bytes.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "common/status.h"

namespace ft {
namespace {

struct Unit {
  absl::string_view name;
  double bytes;
};
constexpr Unit kUnits[] = {{"", 1},
                           {"B", 1},
                           {"kB", 1e3},
                           {"MB", 1e6},
                           {"GB", 1e9},
                           {"TB", 1e12},
                           {"KiB", 1024.0},
                           {"MiB", 1048576.0},
                           {"GiB", 1073741824.0},
                           {"TiB", 1099511627776.0}};

}  // namespace

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(text);
  const size_t number_end = trimmed.find_first_not_of("0123456789.");
  const absl::string_view number = trimmed.substr(0, number_end);
  const absl::string_view unit_name =
      number_end == absl::string_view::npos
          ? absl::string_view()
          : absl::StripAsciiWhitespace(trimmed.substr(number_end));
  double value = 0;
  if (number.empty() || !absl::SimpleAtod(number, &value)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", text, "\" is no amount of bytes; write for example 24GiB"));
  }
  for (const Unit& unit : kUnits) {
    if (unit.name != unit_name) continue;
    const double bytes = value * unit.bytes;
    if (bytes >= std::ldexp(1.0, 62)) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", text, "\" is too large"));
    }
    return static_cast<int64_t>(bytes);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text,
                   "\": unknown unit; use B, kB, MB, GB, TB, KiB, MiB, GiB or "
                   "TiB"));
}

std::string FormatBytes(int64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  static constexpr const char* kNames[] = {"KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes) / 1024;
  int unit = 0;
  for (; value >= 1024 && unit < 3; ++unit) value /= 1024;
  return absl::StrFormat("%.1f %s", value, kNames[unit]);
}

}  // namespace ft
