// SPDX-License-Identifier: Apache-2.0

#include "ctl/client.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/token.h"
#include "ft/v1/jobs.grpc.pb.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

TEST(ClientTest, WhoTakesConnectionsAndSaysNothingDoesNotAnswer) {
  const testing::TestDir dir;
  FT_ASSERT_OK(WriteFileAtomic(dir / "token", MakeToken(), 0600));
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(name);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&name), size), 0);
  ASSERT_EQ(listen(listener.get(), 8), 0);
  ASSERT_EQ(
      getsockname(listener.get(), reinterpret_cast<sockaddr*>(&name), &size),
      0);

  FT_ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<Client> client,
      Client::Connect(
          {.address = absl::StrCat("127.0.0.1:", ntohs(name.sin_port)),
           .token_file = dir / "token"}));
  EXPECT_TRUE(absl::IsDeadlineExceeded(client->Probe(absl::Milliseconds(200))));
}

// A job of so many steps, told page by page.
class LongJob : public v1::JobService::Service {
 public:
  explicit LongJob(int64_t steps) : steps_(steps) {}
  grpc::Status ListMetrics(grpc::ServerContext*,
                           const v1::ListMetricsRequest* request,
                           v1::ListMetricsResponse* response) override {
    constexpr int64_t kPage = 7;
    const int64_t first = request->after_step() + 1;
    const int64_t last = std::min(steps_, first + kPage - 1);
    for (int64_t step = first; step <= last; ++step) {
      response->add_points()->set_step(step);
    }
    response->set_more(response->points_size() == kPage);
    return grpc::Status::OK;
  }

 private:
  const int64_t steps_;
};

TEST(ClientTest, MetricsAreReadToTheLastPage) {
  // After the second step: two full pages and an empty one, or a short one.
  for (const int64_t steps : {16, 19}) {
    const testing::TestDir dir;
    FT_ASSERT_OK(WriteFileAtomic(dir / "token", MakeToken(), 0600));
    LongJob job(steps);
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&job);
    const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    FT_ASSERT_OK_AND_ASSIGN(
        const std::unique_ptr<Client> client,
        Client::Connect({.address = absl::StrCat("127.0.0.1:", port),
                         .token_file = dir / "token"}));
    FT_ASSERT_OK_AND_ASSIGN(const v1::ListMetricsResponse metrics,
                            client->ListMetrics("job", /*after_step=*/2));
    ASSERT_EQ(metrics.points_size(), steps - 2);
    for (int64_t i = 0; i < metrics.points_size(); ++i) {
      EXPECT_EQ(metrics.points(static_cast<int>(i)).step(), i + 3);
    }
  }
}

}  // namespace
}  // namespace ft
