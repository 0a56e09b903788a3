// SPDX-License-Identifier: Apache-2.0
//
// Sockets of the ranks, with deadlines. Only collective/ includes this file.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/file.h"

namespace ft::internal {

struct Listener {
  UniqueFd fd;
  std::string address;  // "127.0.0.1:41234"
};

// A listening socket on a free port of `host` (an IPv4 address).
absl::StatusOr<Listener> Listen(const std::string& host);

// UNAVAILABLE: refused, or not by the deadline.
absl::StatusOr<UniqueFd> Connect(const std::string& address,
                                 absl::Time deadline);
absl::StatusOr<UniqueFd> Accept(const Listener& listener, absl::Time deadline);

// All bytes, or DEADLINE_EXCEEDED, or UNAVAILABLE if the peer closed.
absl::Status SendAll(int fd, absl::string_view bytes, absl::Time deadline);
absl::StatusOr<std::string> ReceiveExactly(int fd, size_t size,
                                           absl::Time deadline);

}  // namespace ft::internal
