// SPDX-License-Identifier: Apache-2.0
//
// What the gate understands of HTTP/2: a wrong reading would let a stranger in
// or keep a good client out.

#include "coordinator/http2_opening.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tests/coordinator/raw_client.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::CallHeaders;
using testing::Frame;
using testing::FrameType;
using testing::HasCode;
using ::testing::HasSubstr;
using testing::Header;
using testing::IsOk;
using testing::kAck;
using testing::kEndHeaders;
using ::testing::Optional;

constexpr char kPath[] = "/ft.v1.JobService/ListJobs";

std::string Settings() { return Frame(FrameType::kSettings, 0, 0, ""); }
std::string Acknowledgement() {
  return Frame(FrameType::kSettings, kAck, 0, "");
}
std::string Begin() { return absl::StrCat(testing::kPreface, Settings()); }
std::string Call(absl::string_view token) {
  return Frame(FrameType::kHeaders, kEndHeaders, 1, CallHeaders(kPath, token));
}

TEST(Http2OpeningTest, TheFirstCallIsReadHoweverItIsCut) {
  const std::string sent = Begin() + Acknowledgement() + Call("Bearer ft_1");
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{33}, sent.size()}) {
    Http2Opening opening;
    for (size_t at = 0; at < sent.size(); at += piece) {
      EXPECT_FALSE(opening.has_call());
      ASSERT_THAT(opening.Feed(sent.substr(at, piece)), IsOk());
    }
    EXPECT_TRUE(opening.has_call());
    EXPECT_EQ(opening.stream(), 1u);
    EXPECT_THAT(opening.authorization(), Optional(std::string("Bearer ft_1")));
  }
}

TEST(Http2OpeningTest, WhoeverServesItGetsAllButTheFirstAcknowledgement) {
  const std::string data = Frame(static_cast<FrameType>(0), 0, 1, "message");
  Http2Opening opening;
  ASSERT_THAT(opening.Feed(Begin() + Call("t") + data), IsOk());
  EXPECT_FALSE(opening.is_acknowledged());
  ASSERT_THAT(opening.Feed(Acknowledgement() + data + Acknowledgement()),
              IsOk());
  EXPECT_TRUE(opening.is_acknowledged());
  // The part of a frame, too.
  ASSERT_THAT(opening.Feed(data.substr(0, 5)), IsOk());
  EXPECT_EQ(opening.TakeBytes(), Begin() + Call("t") + data + data +
                                     Acknowledgement() + data.substr(0, 5));
}

// As clients of other languages send it: Huffman codes and the tables.
TEST(Http2OpeningTest, CompressedHeadersAreUnpacked) {
  nghttp2_hd_deflater* deflater = nullptr;
  ASSERT_EQ(nghttp2_hd_deflate_new(&deflater, 4096), 0);
  std::vector<std::pair<std::string, std::string>> headers = {
      {":method", "POST"},
      {":path", kPath},
      {"te", "trailers"},
      {"authorization", "Bearer ft_0123456789abcdef"}};
  std::vector<nghttp2_nv> pairs;
  for (auto& [name, value] : headers) {
    pairs.push_back({reinterpret_cast<uint8_t*>(name.data()),
                     reinterpret_cast<uint8_t*>(value.data()), name.size(),
                     value.size(), NGHTTP2_NV_FLAG_NONE});
  }
  std::string block(1024, '\0');
  const ssize_t size =
      nghttp2_hd_deflate_hd(deflater, reinterpret_cast<uint8_t*>(block.data()),
                            block.size(), pairs.data(), pairs.size());
  nghttp2_hd_deflate_del(deflater);
  ASSERT_GT(size, 0);
  block.resize(static_cast<size_t>(size));
  EXPECT_THAT(block, ::testing::Not(HasSubstr("Bearer")));

  Http2Opening opening;
  ASSERT_THAT(opening.Feed(absl::StrCat(
                  Begin(), Frame(FrameType::kHeaders, kEndHeaders, 1, block))),
              IsOk());
  EXPECT_THAT(opening.authorization(), Optional(headers[3].second));
}

TEST(Http2OpeningTest, PaddingPriorityAndContinuationsAreTakenOff) {
  const std::string block = CallHeaders(kPath, "t");
  const std::string padded =
      absl::StrCat(std::string(1, 4), std::string(5, 'p'), block.substr(0, 20),
                   std::string(4, '\0'));
  Http2Opening opening;
  ASSERT_THAT(
      opening.Feed(absl::StrCat(
          Begin(), Frame(FrameType::kHeaders, 0x28, 3, padded),
          Frame(FrameType::kContinuation, 0, 3, block.substr(20, 20)),
          Frame(FrameType::kContinuation, kEndHeaders, 3, block.substr(40)))),
      IsOk());
  EXPECT_EQ(opening.stream(), 3u);
  EXPECT_THAT(opening.authorization(), Optional(std::string("t")));
}

TEST(Http2OpeningTest, OfTwoTokensTheFirstCounts) {
  Http2Opening opening;
  ASSERT_THAT(opening.Feed(absl::StrCat(
                  Begin(), Frame(FrameType::kHeaders, kEndHeaders, 1,
                                 CallHeaders(kPath, "first") +
                                     Header("authorization", "second")))),
              IsOk());
  EXPECT_THAT(opening.authorization(), Optional(std::string("first")));
}

// What the second call says is not taken for the first one's.
TEST(Http2OpeningTest, ALaterCallChangesNothing) {
  Http2Opening opening;
  ASSERT_THAT(
      opening.Feed(absl::StrCat(Begin(), Call("first"),
                                Frame(FrameType::kHeaders, kEndHeaders, 3,
                                      CallHeaders(kPath, "second")))),
      IsOk());
  EXPECT_EQ(opening.stream(), 1u);
  EXPECT_THAT(opening.authorization(), Optional(std::string("first")));
}

TEST(Http2OpeningTest, ACallWithoutTokenHasNone) {
  Http2Opening opening;
  ASSERT_THAT(
      opening.Feed(absl::StrCat(Begin(), Frame(FrameType::kHeaders, kEndHeaders,
                                               1, Header(":path", kPath)))),
      IsOk());
  EXPECT_TRUE(opening.has_call());
  EXPECT_EQ(opening.authorization(), std::nullopt);
}

TEST(Http2OpeningTest, WhatIsNoOpeningIsRefused) {
  const std::string block = CallHeaders(kPath, "t");
  const std::string bad[] = {
      "GET / HTTP/1.1\r\n",
      absl::StrCat(testing::kPreface, Call("t")),             // No SETTINGS.
      absl::StrCat(testing::kPreface, Acknowledgement()),     // The same.
      Begin() + Frame(FrameType::kSettings, 0, 1, ""),        // On a stream.
      Begin() + Frame(FrameType::kSettings, kAck, 0, "x"),    // Not empty.
      Begin() + Frame(FrameType::kReset, 0, 1, "1234"),       // Of no call.
      Begin() + Frame(static_cast<FrameType>(0), 0, 1, "x"),  // Data.
      Begin() + Frame(FrameType::kContinuation, 0, 1, "x"),   // Of nothing.
      Begin() + Frame(FrameType::kContinuation, kEndHeaders, 0, block),
      Begin() + Frame(FrameType::kHeaders, kEndHeaders, 0, block),
      Begin() + Frame(FrameType::kHeaders, kEndHeaders, 2, block),
      Begin() + Frame(FrameType::kHeaders, kEndHeaders, 1, "\xff\xff\xff"),
      Begin() + Frame(FrameType::kHeaders, kEndHeaders | 8, 1, "\x09x"),
      Begin() + Frame(FrameType::kHeaders, kEndHeaders | 0x20, 1, "abcd"),
      Begin() + Frame(FrameType::kHeaders, 0, 1, block) + Settings(),
      Begin() + Frame(FrameType::kHeaders, 0, 1, block) +
          Frame(FrameType::kContinuation, kEndHeaders, 3, ""),
      Begin() + std::string("\x00\x40\x01\x04\x00\0\0\0\0", 9),  // 16 KiB + 1.
  };
  for (const std::string& bytes : bad) {
    Http2Opening opening;
    EXPECT_THAT(opening.Feed(bytes),
                HasCode(absl::StatusCode::kInvalidArgument))
        << absl::CHexEscape(bytes);
    EXPECT_FALSE(opening.has_call());
  }
}

// However it is drawn out, it holds a bounded number of bytes.
TEST(Http2OpeningTest, WhatDoesNotEndIsRefused) {
  const std::string pings =
      Frame(FrameType::kPing, 0, 0, "12345678") + Settings();
  const std::string more_headers = Frame(FrameType::kContinuation, 0, 1,
                                         Header("x", std::string(9000, 'x')));
  const std::string data =
      Frame(static_cast<FrameType>(0), 0, 1, std::string(16 << 10, 'd'));
  for (const auto& [begin, repeated, most] :
       {std::tuple(Begin(), pings, 33 << 10),
        std::tuple(Begin() + Frame(FrameType::kHeaders, 0, 1, ""), more_headers,
                   33 << 10),
        std::tuple(Begin() + Call("t"), data, 150 << 10)}) {
    Http2Opening opening;
    absl::Status fed = opening.Feed(begin);
    int bytes = 0;
    while (fed.ok() && bytes < 2 * most) {
      fed = opening.Feed(repeated);
      bytes += static_cast<int>(repeated.size());
    }
    EXPECT_THAT(fed, HasCode(absl::StatusCode::kResourceExhausted));
    EXPECT_LE(bytes, most);
  }
}

// One byte may stand for a header of 4 KiB.
TEST(Http2OpeningTest, HeadersThatUnpackWithoutEndAreRefused) {
  std::string block = "\x40";  // A literal that is indexed, from now on 62.
  block += testing::HpackLength(1) + "x" + testing::HpackLength(4000) +
           std::string(4000, 'x');
  block += std::string(10'000, '\xbe');
  Http2Opening opening;
  EXPECT_THAT(opening.Feed(absl::StrCat(
                  Begin(), Frame(FrameType::kHeaders, kEndHeaders, 1, block))),
              HasCode(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace ft
