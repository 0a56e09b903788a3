// SPDX-License-Identifier: Apache-2.0

#include "common/address.h"

#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::ft::testing::Fails;

TEST(AddressTest, LoopbackIsAccepted) {
  for (const char* text :
       {"127.0.0.1:0", "127.9.9.9:7443", "localhost:1", "[::1]:65535"}) {
    FT_EXPECT_OK(ParseLoopbackAddress(text));
  }
}

TEST(AddressTest, AnyOtherHostIsRefusedWithTheReason) {
  for (const char* text : {"0.0.0.0:7443", "10.0.0.1:7443", "example.org:1",
                           "[::]:7443", "1270.0.0.1:1"}) {
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
