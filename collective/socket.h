// SPDX-License-Identifier: Apache-2.0
//
// Sockets of the ranks, with deadlines. Only collective/ includes this file.

#pragma once

#include <poll.h>

#include <chrono>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/file.h"

namespace ft::internal {

// On a clock that never jumps.
using Deadline = std::chrono::steady_clock::time_point;
Deadline After(absl::Duration timeout);
bool IsOver(Deadline deadline);
absl::Duration LeftUntil(Deadline deadline);

// Waits until a descriptor is ready; false: none was by the deadline.
absl::StatusOr<bool> Poll(std::span<pollfd> descriptors, Deadline deadline);

struct Listener {
  UniqueFd fd;
  std::string address;  // "127.0.0.1:41234"
};

// A listening socket on a free port of `host` (an IPv4 address).
absl::StatusOr<Listener> Listen(const std::string& host);

// UNAVAILABLE: refused, or not by the deadline.
absl::StatusOr<UniqueFd> Connect(const std::string& address, Deadline deadline);
absl::StatusOr<UniqueFd> Accept(const Listener& listener, Deadline deadline);

// All bytes, or DEADLINE_EXCEEDED, or UNAVAILABLE if the peer closed.
absl::Status SendAll(int fd, absl::string_view bytes, Deadline deadline);
absl::StatusOr<std::string> ReceiveExactly(int fd, size_t size,
                                           Deadline deadline);

}  // namespace ft::internal
