// SPDX-License-Identifier: Apache-2.0
//
// The small HTTP door of a daemon: /livez and /readyz for everybody, /metrics
// and whatever else for those with a bearer token. Loopback only, until TLS
// exists.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace ft {

struct HttpServerOptions {
  // "127.0.0.1:7490"; port 0 takes a free one.
  std::string address = "127.0.0.1:0";

  // Whether the program is alive and ready; called on the server's threads.
  std::function<bool()> is_live = [] { return true; };
  std::function<bool()> is_ready = [] { return true; };

  // The text of /metrics.
  std::function<std::string()> metrics = [] { return std::string(); };

  // Whether a bearer token may read.
  std::function<bool(const std::string& token)> is_allowed =
      [](const std::string&) { return false; };
};

// Serves from Create until it is destroyed.
class HttpServer {
 public:
  // INVALID_ARGUMENT: no loopback address. UNAVAILABLE: it cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(
      HttpServerOptions options);
  ~HttpServer();

  // "127.0.0.1:41234".
  const std::string& address() const;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ft
