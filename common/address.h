// SPDX-License-Identifier: Apache-2.0
//
// Listening addresses. Until TLS exists only loopback is accepted: a token in
// clear text must not leave the machine.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ft {

struct HostPort {
  std::string host;
  int port = 0;
};

// "127.0.0.1:7443", "localhost:0", "[::1]:7443".
// INVALID_ARGUMENT: not of this form.
absl::StatusOr<HostPort> ParseAddress(absl::string_view text);

// The same, and INVALID_ARGUMENT unless the host is 127.0.0.1, ::1 or
// localhost: gRPC takes no other for the machine's own.
absl::StatusOr<HostPort> ParseLoopbackAddress(absl::string_view text);

// What ParseAddress reads: "127.0.0.1:7443", "[::1]:7443".
std::string FormatAddress(absl::string_view host, int port);

}  // namespace ft
