// SPDX-License-Identifier: Apache-2.0
//
// Threads and TCP give the same bits, strangers are refused, and a dead peer is
// an error on every rank.

#include "collective/collective.h"

#include <sys/socket.h>

#include <map>
#include <random>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "collective/handshake.h"
#include "collective/socket.h"
#include "collective/tcp_collective.h"
#include "collective/thread_collective.h"
#include "common/check.h"
#include "tests/testing/rank_threads.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::HasCode;
using testing::OnEveryRank;

// A rendezvous for threads.
class MapStore : public RendezvousStore {
 public:
  absl::Status Set(absl::string_view key, absl::string_view value) override {
    absl::MutexLock lock(&mutex_);
    values_[std::string(key)] = std::string(value);
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> Get(absl::string_view key,
                                  absl::Duration timeout) override {
    absl::MutexLock lock(&mutex_);
    const auto is_set = [&] { return values_.contains(std::string(key)); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&is_set), timeout)) {
      return absl::DeadlineExceededError("nobody came");
    }
    return values_[std::string(key)];
  }

 private:
  absl::Mutex mutex_;
  std::map<std::string, std::string> values_;
};

enum class Transport { kThread, kTcp };

std::vector<std::unique_ptr<Collective>> Make(Transport transport, int size) {
  if (transport == Transport::kThread) return MakeThreadCollectives(size);
  MapStore store;
  std::vector<std::unique_ptr<Collective>> ranks(size);
  OnEveryRank(size, [&](int rank) {
    auto collective = ConnectTcp({.rank = rank,
                                  .size = size,
                                  .job_id = "job-test",
                                  .epoch = 7,
                                  .secret = std::string(32, 's')},
                                 store);
    FT_CHECK(collective.ok());
    ranks[rank] = *std::move(collective);
  });
  return ranks;
}

std::vector<float> Values(int rank, size_t size) {
  std::mt19937 random(100 + rank);
  std::normal_distribution<float> normal;
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

class TransportTest
    : public ::testing::TestWithParam<std::tuple<Transport, int>> {
 protected:
  Transport transport() const { return std::get<0>(GetParam()); }
  int size() const { return std::get<1>(GetParam()); }
};

TEST_P(TransportTest, EveryOperationGivesWhatItsContractSays) {
  const auto ranks = Make(transport(), size());
  for (const size_t count : {0u, 1u, 5u, 4096u, 300'000u}) {
    OnEveryRank(size(), [&](int rank) {
      Collective& me = *ranks[rank];
      // Gather.
      const std::vector<float> mine = Values(rank, count);
      std::vector<float> all(count * size());
      FT_ASSERT_OK(me.AllGather(std::as_writable_bytes(std::span(all)),
                                std::as_bytes(std::span(mine))));
      for (int r = 0; r < size(); ++r) {
        const auto want = Values(r, count);
        ASSERT_TRUE(
            std::equal(want.begin(), want.end(), all.begin() + r * count));
      }
      // Reduce-scatter: the tree over the ranks' blocks.
      const std::vector<float> in = Values(rank, count * size());
      std::vector<float> out(count), want(count);
      FT_ASSERT_OK(me.ReduceScatter(out, in));
      const auto oracle = MakeThreadCollectives(1);
      std::vector<std::vector<float>> inputs;
      for (int r = 0; r < size(); ++r) {
        inputs.push_back(Values(r, count * size()));
      }
      for (size_t i = 0; i < count; ++i) {
        const auto x = [&](int r) { return inputs[r][rank * count + i]; };
        const float sum = size() == 1   ? x(0)
                          : size() == 2 ? x(0) + x(1)
                          : size() == 3 ? (x(0) + x(1)) + x(2)
                                        : (x(0) + x(1)) + (x(2) + x(3));
        ASSERT_EQ(out[i], sum);
      }
      // All-reduce and broadcast.
      std::vector<double> sums = {rank + 1.0, 0.1};
      FT_ASSERT_OK(me.AllReduce(sums));
      EXPECT_EQ(sums[0], size() * (size() + 1) / 2);
      std::vector<float> data = Values(rank, count);
      FT_ASSERT_OK(
          me.Broadcast(std::as_writable_bytes(std::span(data)), size() - 1));
      EXPECT_EQ(data, Values(size() - 1, count));
      FT_ASSERT_OK(me.Barrier());
    });
  }
  for (int r = 1; r < size(); ++r) {
    EXPECT_EQ(ranks[r]->sequence_hash(), ranks[0]->sequence_hash());
  }
}

TEST_P(TransportTest, BytesSentAreThoseOfTheTable) {
  const auto ranks = Make(transport(), size());
  OnEveryRank(size(), [&](int rank) {
    std::vector<float> in(1000 * size()), out(1000);
    FT_ASSERT_OK(ranks[rank]->ReduceScatter(out, in));
    FT_ASSERT_OK(ranks[rank]->AllGather(std::as_writable_bytes(std::span(in)),
                                        std::as_bytes(std::span(out))));
  });
  for (const auto& rank : ranks) {
    EXPECT_EQ(rank->bytes_sent().all_to_all, 4000 * (size() - 1));
    EXPECT_EQ(rank->bytes_sent().all_gather, 4000 * (size() - 1));
    EXPECT_EQ(rank->bytes_sent().total(), 8000 * (size() - 1));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, TransportTest,
    ::testing::Combine(::testing::Values(Transport::kThread, Transport::kTcp),
                       ::testing::Values(1, 2, 3, 4)),
    [](const auto& test) {
      return std::string(std::get<0>(test.param) == Transport::kThread
                             ? "Thread"
                             : "Tcp") +
             std::to_string(std::get<1>(test.param));
    });

TEST(TcpTest, ADeadPeerIsAnErrorOnEveryOtherRank) {
  auto ranks = Make(Transport::kTcp, 3);
  absl::Notification dead;
  OnEveryRank(3, [&](int rank) {
    if (rank == 2) {
      ranks[2].reset();
      dead.Notify();
      return;
    }
    std::vector<float> in(3 * 100'000), out(100'000);
    EXPECT_THAT(ranks[rank]->ReduceScatter(out, in),
                HasCode(absl::StatusCode::kAborted));
    // And it stays dead.
    EXPECT_FALSE(ranks[rank]->Barrier().ok());
  });
}

TEST(TcpTest, AbortEndsAWaitingRank) {
  auto ranks = Make(Transport::kTcp, 2);
  OnEveryRank(2, [&](int rank) {
    if (rank == 1) {
      ranks[1]->Abort(absl::CancelledError("told to stop"));
      return;
    }
    EXPECT_FALSE(ranks[0]->Barrier().ok());
  });
}

TEST(TcpTest, RanksThatIssueOtherCallsAreFound) {
  const auto ranks = Make(Transport::kTcp, 2);
  OnEveryRank(2, [&](int rank) {
    std::vector<std::byte> data(rank == 0 ? 8 : 16);
    EXPECT_FALSE(ranks[rank]->Broadcast(data, 0).ok());
  });
}

// A rank of epoch 7 with the secret "ssss..." meets another.
absl::StatusOr<int> MeetStranger(const internal::Identity& stranger) {
  int ends[2];
  FT_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  UniqueFd a(ends[0]), b(ends[1]);
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  absl::StatusOr<int> result = absl::UnknownError("");
  OnEveryRank(2, [&](int side) {
    if (side == 0) {
      result = internal::Handshake(a.get(), internal::Side::kAcceptor,
                                   {.job_id = "job-a",
                                    .epoch = 7,
                                    .rank = 0,
                                    .size = 2,
                                    .secret = std::string(32, 's')},
                                   deadline);
      a.Close();
    } else {
      internal::Handshake(b.get(), internal::Side::kConnector, stranger,
                          deadline)
          .status()
          .IgnoreError();  // The acceptor's verdict is asked.
    }
  });
  return result;
}

TEST(HandshakeTest, OnlyARankOfTheSameAttemptIsLetIn) {
  const internal::Identity good{.job_id = "job-a",
                                .epoch = 7,
                                .rank = 1,
                                .size = 2,
                                .secret = std::string(32, 's')};
  EXPECT_EQ(MeetStranger(good).value(), 1);
  const auto refused = HasCode(absl::StatusCode::kPermissionDenied);
  internal::Identity bad = good;
  bad.secret = std::string(32, 't');
  EXPECT_THAT(MeetStranger(bad), refused);
  bad = good;
  bad.epoch = 6;
  EXPECT_THAT(MeetStranger(bad), refused);
  bad = good;
  bad.job_id = "job-b";
  EXPECT_THAT(MeetStranger(bad), refused);
  bad = good;
  bad.rank = 5;
  EXPECT_THAT(MeetStranger(bad), refused);
}

TEST(HandshakeTest, WhatSpeaksSomethingElseIsRefused) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
  UniqueFd a(ends[0]), b(ends[1]);
  FT_ASSERT_OK(WriteAll(b.get(), std::string(88, 'G')));
  EXPECT_THAT(internal::Handshake(a.get(), internal::Side::kAcceptor,
                                  {.job_id = "j", .size = 2},
                                  absl::Now() + absl::Seconds(20)),
              HasCode(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace ft
