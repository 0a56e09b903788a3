// SPDX-License-Identifier: Apache-2.0
//
// Who is let in to a gRPC listener, over real sockets.

#include "coordinator/connection_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "tests/coordinator/raw_client.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::CallHeaders;
using ::testing::ElementsAre;
using testing::Frame;
using testing::FrameType;
using testing::HasCode;
using ::testing::HasSubstr;
using testing::kAck;
using testing::kEndHeaders;
using testing::RawClient;

constexpr char kPath[] = "/ft.v1.JobService/ListJobs";

std::string Opening(absl::string_view token) {
  return absl::StrCat(
      testing::kPreface, Frame(FrameType::kSettings, 0, 0, ""),
      Frame(FrameType::kSettings, kAck, 0, ""),
      Frame(FrameType::kHeaders, kEndHeaders, 1, CallHeaders(kPath, token)));
}

class ConnectionGateTest : public ::testing::Test {
 protected:
  // Lets in the token "good".
  void Open(ConnectionGateOptions options = {}) {
    options.host = "127.0.0.1";
    options.check = [](const std::optional<std::string>& authorization) {
      return authorization == "good"
                 ? absl::OkStatus()
                 : absl::UnauthenticatedError("whose token is it?");
    };
    options.admit = [this](UniqueFd connection, std::string bytes) {
      absl::MutexLock lock(&mutex_);
      admitted_.push_back({std::move(connection), std::move(bytes)});
    };
    options.on_ended = [this](absl::string_view reason) {
      absl::MutexLock lock(&mutex_);
      ended_.emplace_back(reason);
    };
    gate_ = ConnectionGate::Open(std::move(options)).value();
  }
  std::string Address() const {
    return absl::StrCat("127.0.0.1:", gate_->port());
  }

  // Waits for `count` of them: what their clients had sent.
  std::vector<std::string> WaitForAdmitted(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto are_there = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return admitted_.size() >= count;
    };
    mutex_.Await(absl::Condition(&are_there));
    std::vector<std::string> bytes;
    for (const Admitted& admitted : admitted_) bytes.push_back(admitted.bytes);
    return bytes;
  }
  std::vector<std::string> Ended() {
    absl::MutexLock lock(&mutex_);
    return ended_;
  }

  struct Admitted {
    UniqueFd connection;
    std::string bytes;
  };
  absl::Mutex mutex_;
  std::deque<Admitted> admitted_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> ended_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<ConnectionGate> gate_;
};

TEST_F(ConnectionGateTest, ATokenOpensItAndTheConnectionStaysOpen) {
  Open();
  RawClient client(Address());
  ASSERT_TRUE(client.Send(Opening("good")));
  const std::string all = Opening("good");
  const std::string acknowledgement = Frame(FrameType::kSettings, kAck, 0, "");
  std::string expected = all;
  expected.erase(all.find(acknowledgement), acknowledgement.size());
  EXPECT_THAT(WaitForAdmitted(1), ElementsAre(expected));
  // What comes later is for the new owner.
  ASSERT_TRUE(client.Send("more"));
  char more[4];
  absl::MutexLock lock(&mutex_);
  EXPECT_EQ(recv(admitted_[0].connection.get(), more, 4, 0), 4);
}

TEST_F(ConnectionGateTest, AWrongTokenIsToldSoAndThenClosed) {
  Open();
  RawClient client(Address());
  client.Send(Opening("bad"));
  const std::optional<std::string> answer = client.ReadToEnd(15);
  ASSERT_TRUE(answer.has_value());
  EXPECT_THAT(*answer, HasSubstr("whose token is it?"));
  EXPECT_THAT(WaitForAdmitted(0), ElementsAre());
}

// gRPC acknowledges nothing that it has not sent itself.
TEST_F(ConnectionGateTest, WithoutAcknowledgementNobodyIsLetIn) {
  Open({.patience = absl::Milliseconds(200)});
  RawClient client(Address());
  client.Send(absl::StrCat(
      testing::kPreface, Frame(FrameType::kSettings, 0, 0, ""),
      Frame(FrameType::kHeaders, kEndHeaders, 1, CallHeaders(kPath, "good"))));
  EXPECT_TRUE(client.IsClosedWithin(15));
  EXPECT_THAT(WaitForAdmitted(0), ElementsAre());
  EXPECT_THAT(Ended(), ElementsAre("no_call"));
}

TEST_F(ConnectionGateTest, WhatIsNoHttp2IsEndedAtOnce) {
  Open({.patience = absl::Hours(1)});
  RawClient client(Address());
  client.Send("GET / HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(client.IsClosedWithin(15));
  EXPECT_THAT(Ended(), ElementsAre("malformed"));
}

TEST_F(ConnectionGateTest, WhoeverIsSilentIsEndedAndToldThatNothingWasServed) {
  Open({.patience = absl::Milliseconds(200)});
  RawClient client(Address());
  const std::optional<std::string> answer = client.ReadToEnd(15);
  ASSERT_TRUE(answer.has_value());
  // GOAWAY, last stream 0, NO_ERROR: each call may be tried again.
  EXPECT_EQ(answer->substr(answer->size() - 17),
            Frame(static_cast<FrameType>(7), 0, 0, std::string(8, '\0')));
}

// Strangers that hold places do not keep a client with a token out.
TEST_F(ConnectionGateTest, TheOldestMakesRoom) {
  Open({.patience = absl::Hours(1), .max_waiting = 3});
  std::deque<RawClient> idle;
  for (int i = 0; i < 5; ++i) idle.emplace_back(Address());
  RawClient client(Address());
  client.Send(Opening("good"));
  WaitForAdmitted(1);
  for (int i = 0; i < 3; ++i)
    EXPECT_TRUE(idle[static_cast<size_t>(i)].IsClosedWithin(15)) << i;
  EXPECT_THAT(Ended(), ElementsAre("no_call", "no_call", "no_call"));
}

// A client that talks on while it is refused is not read for ever.
TEST_F(ConnectionGateTest, ARefusedClientThatTalksOnIsEnded) {
  Open({.patience = absl::Hours(1)});
  RawClient client(Address());
  client.Send(Opening("bad"));
  const std::string more(64 << 10, 'x');
  while (client.Send(more)) {
  }
  EXPECT_THAT(WaitForAdmitted(0), ElementsAre());
}

TEST_F(ConnectionGateTest, WhatWaitsEndsWithIt) {
  Open({.patience = absl::Hours(1)});
  RawClient client(Address());
  gate_.reset();
  EXPECT_TRUE(client.IsClosedWithin(15));
}

TEST_F(ConnectionGateTest, ATakenPortIsSaid) {
  Open();
  EXPECT_THAT(
      ConnectionGate::Open({.host = "127.0.0.1", .port = gate_->port()}),
      HasCode(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace ft
