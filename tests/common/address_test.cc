// SPDX-License-Identifier: Apache-2.0

#include "common/address.h"

#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::ft::testing::Fails;

TEST(AddressTest, LoopbackIsAccepted) {
  for (const char* text : {"127.0.0.1:0", "localhost:1", "[::1]:65535"}) {
    FT_EXPECT_OK(ParseLoopbackAddress(text));
  }
}

TEST(AddressTest, WhatIsWrittenIsRead) {
  for (const char* text : {"127.0.0.1:7443", "[::1]:7443"}) {
    FT_ASSERT_OK_AND_ASSIGN(const HostPort address, ParseAddress(text));
    EXPECT_EQ(FormatAddress(address.host, address.port), text);
  }
}

TEST(AddressTest, AnyOtherHostIsRefusedWithTheReason) {
  for (const char* text : {"0.0.0.0:7443", "10.0.0.1:7443", "example.org:1",
                           "[::]:7443", "1270.0.0.1:1", "127.0.0.2:0"}) {
    EXPECT_THAT(ParseLoopbackAddress(text),
                Fails(absl::StatusCode::kInvalidArgument, "without TLS"))
        << text;
  }
}

TEST(AddressTest, WhatIsNoAddressIsRefused) {
  for (const char* text : {"", ":1", "127.0.0.1", "127.0.0.1:x",
                           "127.0.0.1:65536", "127.0.0.1:-1", "[::1:7"}) {
    EXPECT_FALSE(ParseAddress(text).ok()) << text;
  }
}

}  // namespace
}  // namespace ft
