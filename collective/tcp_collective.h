// SPDX-License-Identifier: Apache-2.0
//
// Ranks that reach each other by TCP: one connection a pair, non-blocking, all
// driven by one poll loop of the calling thread, so that sending and receiving
// overlap and no pair can block another.
//
// A connection begins with a proof: both sides show that they know the
// attempt's secret (HMAC over the other's nonce; the secret itself never
// travels), and name job, epoch and rank; a rank of another epoch is refused.
// Every message then has a header with job, epoch, sequence, operation and
// size, checked before a byte of it is used. The data are not encrypted: the
// address must belong to a network that only workers share.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "collective/collective.h"
#include "collective/rendezvous_store.h"
#include "common/file.h"

namespace ft {

inline constexpr size_t kSecretBytes = 32;

struct TcpOptions {
  int rank = 0;
  int size = 1;
  std::string job_id;
  uint64_t epoch = 0;
  std::string secret;  // kSecretBytes, the same for all; not for a size of 1.
  // What to listen on; the others must reach it.
  std::string bind_address = "127.0.0.1";
  absl::Duration connect_timeout = absl::Seconds(60);
  // When nobody we wait for moves a byte for so long, one of them is dead. Must
  // be longer than the longest time between two calls of a rank.
  absl::Duration idle_timeout = absl::Seconds(300);
};

// Meets the other ranks by `store` and connects to each.
// DEADLINE_EXCEEDED: a rank did not come in time. PERMISSION_DENIED: a peer
// that we dialled does not know the secret, or is of another job or epoch; who
// dials us so is only refused. UNAVAILABLE: nobody listens any more.
//
// Later, from every call: ABORTED, a peer died, gave up or was silent for
// idle_timeout; INTERNAL, it made other calls than this rank.
absl::StatusOr<std::unique_ptr<Collective>> ConnectTcp(
    const TcpOptions& options, RendezvousStore& store);

// The same over streams that have been proven already: peers[r] leads to rank
// r, non-blocking; the own one is not looked at. Fuzzers play the peer.
// REQUIRES: peers.size() == options.size
absl::StatusOr<std::unique_ptr<Collective>> TcpOver(
    const TcpOptions& options, std::vector<UniqueFd> peers);

}  // namespace ft
