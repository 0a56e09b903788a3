// SPDX-License-Identifier: Apache-2.0

#include "ctl/client.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/token.h"
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

}  // namespace
}  // namespace ft
