// SPDX-License-Identifier: Apache-2.0
//
// Who may call what: every method that the listeners serve, as reflection lists
// them, with tokens that are missing, wrong, or of the other role.

#include "tests/coordinator/service_world.h"

namespace ft {
namespace {

using testing::HandWorker;
using testing::HasCode;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::kRows;
using testing::ServiceTest;

// --- Access ------------------------------------------------------------------

TEST_F(ServiceTest, EveryServedMethodHasARowOfRights) {
  const std::vector<std::string> known = KnownMethods();
  std::set<std::string> served;
  for (const auto& channel : {clients_, workers_}) {
    // Reflection is for admins; the workers' listener answers them too.
    for (const std::string& path : Served(channel)) served.insert(path);
  }
  EXPECT_EQ(served, std::set<std::string>(known.begin(), known.end()));
}

TEST_F(ServiceTest, EveryMethodRefusesWhoHasNoTokenOrAWrongOne) {
  const std::string good = coordinator_->admin_token();
  const std::string flipped =
      good.substr(0, 10) + (good[10] == 'a' ? 'b' : 'a') + good.substr(11);
  int refused = 0;
  for (const auto& channel : {clients_, workers_}) {
    std::vector<std::string> paths = KnownMethods();
    paths.push_back("/ft.v1.JobService/NoSuchMethod");
    paths.push_back("/no.such.Service/Method");
    for (const std::string& path : paths) {
      for (const std::string& token :
           {std::string(), std::string("x"), MakeToken(), flipped, good + "0",
            good.substr(0, good.size() - 1)}) {
        EXPECT_EQ(Raw(channel, path, token).error_code(),
                  grpc::StatusCode::UNAUTHENTICATED)
            << path;
        ++refused;
      }
      for (const std::string& header :
           {good, "Basic " + good, std::string("Bearer"), "bearer " + good}) {
        EXPECT_EQ(Raw(channel, path, "", "", nullptr, header).error_code(),
                  grpc::StatusCode::UNAUTHENTICATED)
            << path << " with " << header.substr(0, 6);
        ++refused;
      }
    }
  }
  EXPECT_GE(refused, 500);
}

TEST_F(ServiceTest, ATokenAllowsOnlyWhatItsRoleMay) {
  const auto refuses = [&](const auto& channel, const std::string& path,
                           const std::string& token) {
    return Raw(channel, path, token).error_code() ==
           grpc::StatusCode::PERMISSION_DENIED;
  };
  for (const std::string& path : KnownMethods()) {
    if (!CheckAccess(Role::kWorker, path).ok()) {
      EXPECT_TRUE(refuses(clients_, path, coordinator_->worker_token()))
          << path;
    }
    if (!CheckAccess(Role::kAdmin, path).ok()) {
      EXPECT_TRUE(refuses(workers_, path, coordinator_->admin_token())) << path;
    }
  }
  EXPECT_TRUE(refuses(clients_, "/ft.v1.JobService/NoSuchMethod",
                      coordinator_->admin_token()));
}

TEST_F(ServiceTest, HealthSaysThatItServes) {
  // HealthCheckRequest{service} and HealthCheckResponse{status: SERVING}.
  for (const std::string& service : {std::string(), std::string("ft.readiness"),
                                     std::string("ft.liveness")}) {
    const std::string body = absl::StrCat(
        "\x0a", std::string(1, static_cast<char>(service.size())), service);
    for (const auto& [channel, token] :
         {std::pair(clients_, coordinator_->admin_token()),
          std::pair(workers_, coordinator_->worker_token())}) {
      std::string answer;
      EXPECT_TRUE(
          Raw(channel, "/grpc.health.v1.Health/Check", token, body, &answer)
              .ok());
      EXPECT_EQ(answer, "\x08\x01") << service;
    }
  }
}

TEST_F(ServiceTest, AddressesBeyondLoopbackAreRefusedWithTheReason) {
  for (const char* address : {"0.0.0.0:0", "10.0.0.1:0", "[::]:0"}) {
    GrpcServerOptions options{.address = address,
                              .services = {},
                              .tokens = std::make_shared<TokenTable>()};
    const auto server = GrpcServer::Start(std::move(options));
    EXPECT_THAT(server, HasCode(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(std::string(server.status().message()), HasSubstr("TLS"));
  }
}

TEST_F(ServiceTest, ATakenPortIsSaid) {
  const auto server =
      GrpcServer::Start({.address = coordinator_->client_address(),
                         .services = {},
                         .tokens = std::make_shared<TokenTable>()});
  EXPECT_THAT(server, HasCode(absl::StatusCode::kUnavailable));
}

TEST_F(ServiceTest, ASecondCoordinatorOnTheSameDataIsRefused) {
  CoordinatorConfig config;
  config.data_dir = dir_ / "data";
  config.client_address = "127.0.0.1:0";
  config.worker_address = "127.0.0.1:0";
  config.http_address = "127.0.0.1:0";
  EXPECT_THAT(Coordinator::Start(std::move(config)),
              HasCode(absl::StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace ft
