// SPDX-License-Identifier: Apache-2.0

#include "common/http_server.h"

#include <httplib.h>

#include "common/address.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::ft::testing::Fails;

class HttpServerTest : public ::testing::Test {
 protected:
  void Start() {
    auto server = HttpServer::Create(
        {.is_ready = [this] { return ready_; },
         .metrics = [] { return std::string("ft_x 1\n"); },
         .is_allowed = [](const std::string& token) { return token == "t"; }});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const HostPort address = ParseAddress(server_->address()).value();
    client_ = std::make_unique<httplib::Client>(address.host, address.port);
  }
  int Get(const std::string& path, const std::string& token = "") {
    httplib::Headers headers;
    if (!token.empty()) headers.emplace("Authorization", "Bearer " + token);
    return client_->Get(path, headers)->status;
  }

  bool ready_ = true;
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<httplib::Client> client_;
};

TEST_F(HttpServerTest, OnlyLivezAndReadyzAreFree) {
  Start();
  EXPECT_EQ(Get("/livez"), 200);
  EXPECT_EQ(Get("/readyz"), 200);
  for (const char* path :
       {"/metrics", "/", "/v1/jobs", "/livez/x", "//livez"}) {
    EXPECT_EQ(Get(path), 401) << path;
    EXPECT_EQ(Get(path, "wrong"), 401) << path;
  }
  EXPECT_EQ(Get("/metrics", "t"), 200);
  EXPECT_EQ(Get("/other", "t"), 404);
}

TEST_F(HttpServerTest, ReadinessFollowsTheProgram) {
  Start();
  ready_ = false;
  EXPECT_EQ(Get("/readyz"), 503);
  EXPECT_EQ(Get("/livez"), 200);
}

TEST_F(HttpServerTest, OnlyLoopbackIsServed) {
  EXPECT_THAT(HttpServer::Create({.address = "0.0.0.0:0"}),
              Fails(absl::StatusCode::kInvalidArgument, "without TLS"));
}

}  // namespace
}  // namespace ft
