// SPDX-License-Identifier: Apache-2.0
//
// The proof at the beginning of a connection between two ranks. Both sides send
// a hello {magic, version, job, epoch, rank, nonce}, then an HMAC-SHA-256 under
// the attempt's secret over both hellos and the own role. Only collective/
// includes this file.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "collective/socket.h"

namespace ft::internal {

struct Identity {
  std::string job_id;
  uint64_t epoch = 0;
  int rank = 0;
  int size = 1;
  std::string secret;
};

enum class Side { kConnector, kAcceptor };

// Returns the peer's rank.
// PERMISSION_DENIED: it does not know the secret, or is of another job or
// epoch. INVALID_ARGUMENT: it speaks something else.
absl::StatusOr<int> Handshake(int fd, Side side, const Identity& self,
                              Deadline deadline);

}  // namespace ft::internal
