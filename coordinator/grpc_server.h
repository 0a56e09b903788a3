// SPDX-License-Identifier: Apache-2.0
//
// One gRPC listener: loopback, behind a gate that lets in only connections that
// show a token, a memory quota of its own so that clients cannot starve
// heartbeats, health and reflection.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/access.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace ft {

struct GrpcServerOptions {
  // "127.0.0.1:7443"; port 0 takes a free one.
  std::string address;
  std::vector<std::shared_ptr<grpc::Service>> services;
  std::shared_ptr<const TokenTable> tokens;

  // A call was refused: "no_token", "bad_token", "role". Or a connection that
  // made none: "malformed", "no_call".
  std::function<void(absl::string_view reason)> on_denied =
      [](absl::string_view) {};
};

class GrpcServer {
 public:
  // INVALID_ARGUMENT: no loopback address. UNAVAILABLE: it cannot be bound.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(
      GrpcServerOptions options);

  // Ends every call.
  ~GrpcServer();

  // "127.0.0.1:41234".
  const std::string& address() const;

  // What health says: ft.readiness and the server as a whole; ft.liveness.
  void SetServing(bool is_ready, bool is_live);

  // No new calls; those that run may go on for so long.
  void Shutdown(absl::Duration grace);

 private:
  struct Impl;
  explicit GrpcServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ft
