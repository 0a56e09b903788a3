// SPDX-License-Identifier: Apache-2.0

#include "common/http_server.h"

#include <httplib.h>

#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "common/address.h"
#include "common/status.h"

namespace ft {

struct HttpServer::Impl {
  HttpServerOptions options;
  httplib::Server server;
  std::thread thread;
  std::string address;
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(
    HttpServerOptions options) {
  FT_ASSIGN_OR_RETURN(const HostPort wanted,
                      ParseLoopbackAddress(options.address), "HTTP address");
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  Impl* const self = impl.get();

  const auto probe = [](const std::function<bool()>& is_good) {
    return [&is_good](const httplib::Request&, httplib::Response& response) {
      response.status = is_good() ? 200 : 503;
      response.set_content(response.status == 200 ? "ok\n" : "not ready\n",
                           "text/plain");
    };
  };
  self->server.Get("/livez", probe(self->options.is_live));
  self->server.Get("/readyz", probe(self->options.is_ready));
  self->server.Get(
      "/metrics", [self](const httplib::Request&, httplib::Response& response) {
        response.set_content(self->options.metrics(),
                             "text/plain; version=0.0.4; charset=utf-8");
      });
  // Before any route: whoever has no token learns nothing, not even which
  // paths exist.
  self->server.set_pre_routing_handler(
      [self](const httplib::Request& request, httplib::Response& response) {
        if (request.path == "/livez" || request.path == "/readyz") {
          return httplib::Server::HandlerResponse::Unhandled;
        }
        const std::string header = request.get_header_value("Authorization");
        absl::string_view token = header;
        if (absl::ConsumePrefix(&token, "Bearer ") &&
            self->options.is_allowed(std::string(token))) {
          return httplib::Server::HandlerResponse::Unhandled;
        }
        response.status = 401;
        response.set_header("WWW-Authenticate", "Bearer");
        response.set_content("a bearer token is wanted\n", "text/plain");
        return httplib::Server::HandlerResponse::Handled;
      });
  self->server.set_payload_max_length(1 << 20);
  self->server.set_read_timeout(10);
  self->server.set_write_timeout(10);
  self->server.new_task_queue = [] { return new httplib::ThreadPool(2); };

  int port = wanted.port;
  if (port == 0) {
    port = self->server.bind_to_any_port(wanted.host);
  } else if (!self->server.bind_to_port(wanted.host, port)) {
    port = -1;
  }
  if (port < 0) {
    return absl::UnavailableError(absl::StrCat("HTTP address ", wanted.host,
                                               ":", wanted.port, " is taken"));
  }
  self->address = FormatAddress(wanted.host, port);
  self->thread = std::thread([self] { self->server.listen_after_bind(); });
  // stop() does nothing before the loop runs; nobody may destroy us earlier.
  while (!self->server.is_running()) std::this_thread::yield();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() {
  impl_->server.stop();
  impl_->thread.join();
}

const std::string& HttpServer::address() const { return impl_->address; }

}  // namespace ft
