// SPDX-License-Identifier: Apache-2.0
//
// Accepts the connections of a gRPC listener and lets in those whose first call
// has a token. All others end here: they cost a place of a bounded table for a
// bounded time, and gRPC, where strangers could make memory and work by floods
// of frames, never sees them.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/file.h"

namespace ft {

struct ConnectionGateOptions {
  // "127.0.0.1", "::1" or "localhost"; port 0 takes a free one.
  std::string host;
  int port = 0;

  // From accept to the headers of the first call, and to the end of a refusal.
  absl::Duration patience = absl::Seconds(5);
  // Connections that are not let in yet; one more ends the oldest of them.
  size_t max_waiting = 1024;

  // UNAUTHENTICATED: who sends this `authorization` header is not let in, and
  // is told the message.
  std::function<absl::Status(const std::optional<std::string>& authorization)>
      check;
  // Takes over a connection, and what its client has sent.
  std::function<void(UniqueFd connection, std::string bytes)> admit;
  // A connection was ended without a call: "malformed", "no_call".
  std::function<void(absl::string_view reason)> on_ended =
      [](absl::string_view) {};
};

class ConnectionGate {
 public:
  // Calls back on a thread of its own, from now on. UNAVAILABLE: the address
  // cannot be bound.
  static absl::StatusOr<std::unique_ptr<ConnectionGate>> Open(
      ConnectionGateOptions options);

  // Ends what waits; nothing is called back any more.
  ~ConnectionGate();

  int port() const { return port_; }

 private:
  struct Waiting;

  ConnectionGate(ConnectionGateOptions options, UniqueFd listener, int port,
                 UniqueFd epoll, UniqueFd stop);

  void Run();
  void Accept();
  void Read(uint64_t id);
  void EndLate();
  // Makes room for one more, if there is anything to end.
  bool EndOldest();
  void Refuse(Waiting& waiting, const absl::Status& why);

  const ConnectionGateOptions options_;
  const UniqueFd listener_;
  const int port_;
  const UniqueFd epoll_;
  const UniqueFd stop_;
  const RealClock clock_;

  // Of the thread alone. By age: ids rise.
  uint64_t last_id_;
  std::map<uint64_t, Waiting> waiting_;

  std::thread thread_;
};

}  // namespace ft
