// SPDX-License-Identifier: Apache-2.0

#include "common/address.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/status.h"

namespace ft {

absl::StatusOr<HostPort> ParseAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  HostPort address;
  if (colon == absl::string_view::npos || colon == 0 ||
      !absl::SimpleAtoi(text.substr(colon + 1), &address.port) ||
      address.port < 0 || address.port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text,
                     "\" is no address; write HOST:PORT, for example "
                     "127.0.0.1:7443"));
  }
  absl::string_view host = text.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[") && !absl::ConsumeSuffix(&host, "]")) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\": the bracket is not closed"));
  }
  address.host = std::string(host);
  return address;
}

absl::StatusOr<HostPort> ParseLoopbackAddress(absl::string_view text) {
  FT_ASSIGN_OR_RETURN(HostPort address, ParseAddress(text));
  const bool is_loopback = address.host == "localhost" ||
                           address.host == "::1" || address.host == "127.0.0.1";
  if (!is_loopback) {
    return absl::InvalidArgumentError(absl::StrCat(
        text,
        " is no loopback address (127.0.0.1, [::1] or localhost): without TLS "
        "a token would cross the network in clear text"));
  }
  return address;
}

std::string FormatAddress(absl::string_view host, int port) {
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port)
                                      : absl::StrCat(host, ":", port);
}

}  // namespace ft
