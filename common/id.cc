// SPDX-License-Identifier: Apache-2.0

#include "common/id.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/digest.h"

namespace ft {
namespace {

constexpr absl::string_view kCrockford = "0123456789abcdefghjkmnpqrstvwxyz";
constexpr absl::string_view kJobPrefix = "job-";

}  // namespace

std::string MakeJobId(absl::Time now, uint32_t counter) {
  const auto millis = static_cast<uint64_t>(absl::ToUnixMillis(now));
  const uint64_t bits =
      ((millis & ((uint64_t{1} << 42) - 1)) << 18) | (counter & 0x3FFFF);
  std::string text(12, '0');
  for (int i = 0; i < 12; ++i) {
    text[11 - i] = kCrockford[(bits >> (5 * i)) & 31];
  }
  return absl::StrCat(kJobPrefix, text);
}

bool IsJobId(absl::string_view text) {
  return text.size() == kJobPrefix.size() + 12 &&
         absl::StartsWith(text, kJobPrefix) &&
         std::all_of(text.begin() + kJobPrefix.size(), text.end(),
                     [](char c) { return absl::StrContains(kCrockford, c); });
}

std::string MakeRequestId() { return RandomHex(16); }

bool IsRequestId(absl::string_view text) {
  return !text.empty() && text.size() <= 64 &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                  c == '_' || c == '-';
         });
}

bool IsLabel(absl::string_view text) {
  return !text.empty() && text.size() <= 63 &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
         });
}

}  // namespace ft
