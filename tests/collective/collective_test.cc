// SPDX-License-Identifier: Apache-2.0
//
// Threads, shared memory and TCP give the same bits, strangers are refused, and
// a dead peer is an error on every rank.

#include "collective/collective.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <thread>

#include "absl/synchronization/notification.h"
#include "collective/handshake.h"
#include "collective/shm_collective.h"
#include "collective/socket.h"
#include "collective/tcp_collective.h"
#include "collective/thread_collective.h"
#include "common/check.h"
#include "common/shared_memory.h"
#include "tests/testing/shm_ranks.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tcp_ranks.h"

namespace ft {
namespace {

using testing::Fails;
using testing::HasCode;
using testing::MakeShmCollectives;
using testing::MakeTcpCollectives;
using testing::OnEveryRank;
using testing::TestShmOptions;
using testing::TestTcpOptions;

enum class Transport { kThread, kShm, kTcp };

std::string NameOf(Transport transport) {
  switch (transport) {
    case Transport::kThread:
      return "Thread";
    case Transport::kShm:
      return "Shm";
    case Transport::kTcp:
      return "Tcp";
  }
  return "";
}

std::vector<std::unique_ptr<Collective>> Make(
    Transport transport, int size,
    absl::Duration idle_timeout = absl::Seconds(60)) {
  switch (transport) {
    case Transport::kThread:
      return MakeThreadCollectives(size, idle_timeout);
    case Transport::kShm:
      // Small halves: every operation takes many pieces.
      return MakeShmCollectives(size, idle_timeout, /*bytes_per_rank=*/40'000);
    case Transport::kTcp:
      return MakeTcpCollectives(size, idle_timeout);
  }
  return {};
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

TEST_P(TransportTest, AGatherMayBeInPlaceAndAReductionMayLieInItsInput) {
  const auto ranks = Make(transport(), size());
  OnEveryRank(size(), [&](int rank) {
    const size_t count = 3000;
    std::vector<float> all(count * size());
    const std::span<float> mine = std::span(all).subspan(rank * count, count);
    std::ranges::copy(Values(rank, count), mine.begin());
    FT_ASSERT_OK(ranks[rank]->AllGather(std::as_writable_bytes(std::span(all)),
                                        std::as_bytes(mine)));
    std::vector<float> separate(count);
    FT_ASSERT_OK(ranks[rank]->ReduceScatter(separate, all));
    FT_ASSERT_OK(ranks[rank]->ReduceScatter(mine, all));
    EXPECT_TRUE(std::ranges::equal(mine, separate));
    EXPECT_TRUE(std::ranges::equal(
        std::span(all).subspan((rank + 1) % size() * count, count),
        size() == 1 ? std::vector<float>(separate)
                    : Values((rank + 1) % size(), count)));
  });
}

TEST_P(TransportTest, DelaysOfAnyRankDoNotChangeABit) {
  const auto run = [&](bool delayed) {
    const auto ranks = Make(transport(), size());
    std::vector<std::vector<float>> results(size());
    OnEveryRank(size(), [&](int rank) {
      std::mt19937 random(rank);
      for (int call = 0; call < 20; ++call) {
        // A function of rank and call: the order of arrival differs each time.
        for (uint32_t i = delayed ? random() % 2000 : 0; i > 0; --i) {
          std::this_thread::yield();
        }
        const std::vector<float> in = Values(rank + call, 257 * size());
        std::vector<float> out(257);
        FT_ASSERT_OK(ranks[rank]->ReduceScatter(out, in));
        results[rank].insert(results[rank].end(), out.begin(), out.end());
      }
    });
    return results;
  };
  EXPECT_EQ(run(true), run(false));
}

TEST_P(TransportTest, AbortEndsAWaitingRankAndTheLaterCallsOfAll) {
  if (size() == 1) return;
  auto ranks = Make(transport(), size());
  OnEveryRank(size(), [&](int rank) {
    if (rank == size() - 1) {
      ranks[rank]->Abort(absl::CancelledError("told to stop"));
      EXPECT_THAT(ranks[rank]->Barrier(),
                  Fails(absl::StatusCode::kCancelled, "told to stop"));
      return;
    }
    EXPECT_THAT(ranks[rank]->Barrier(), ::testing::Not(testing::IsOk()));
    EXPECT_THAT(ranks[rank]->Barrier(), ::testing::Not(testing::IsOk()));
  });
}

TEST_P(TransportTest, RanksThatMakeOtherCallsAreFound) {
  if (size() == 1) return;
  const auto other_size = Make(transport(), size());
  OnEveryRank(size(), [&](int rank) {
    std::vector<std::byte> data(rank == 0 ? 8 : 16);
    EXPECT_FALSE(other_size[rank]->Broadcast(data, 0).ok());
  });
  const auto other_operation = Make(transport(), size());
  OnEveryRank(size(), [&](int rank) {
    std::vector<std::byte> data(size());
    EXPECT_FALSE((rank == 0 ? other_operation[0]->Broadcast(data, 0)
                            : other_operation[rank]->AllToAll(data, data))
                     .ok());
  });
}

INSTANTIATE_TEST_SUITE_P(
    All, TransportTest,
    ::testing::Combine(::testing::Values(Transport::kThread, Transport::kShm,
                                         Transport::kTcp),
                       ::testing::Values(1, 2, 3, 4)),
    [](const auto& test) {
      return NameOf(std::get<0>(test.param)) +
             std::to_string(std::get<1>(test.param));
    });

// What holds between processes, whatever carries the bytes.
class PeerTest : public ::testing::TestWithParam<Transport> {};

TEST_P(PeerTest, ADeadPeerIsAnErrorOnEveryOtherRank) {
  auto ranks = Make(GetParam(), 3);
  OnEveryRank(3, [&](int rank) {
    if (rank == 2) {
      ranks[2].reset();
      return;
    }
    std::vector<float> in(3 * 100'000), out(100'000);
    EXPECT_THAT(ranks[rank]->ReduceScatter(out, in),
                HasCode(absl::StatusCode::kAborted));
    // And it stays dead.
    EXPECT_FALSE(ranks[rank]->Barrier().ok());
  });
}

TEST_P(PeerTest, AHungPeerIsAnErrorWithinTheTimeout) {
  const auto ranks = Make(GetParam(), 3, absl::Milliseconds(100));
  absl::Notification over;
  OnEveryRank(3, [&](int rank) {
    if (rank == 2) {
      over.WaitForNotification();  // Alive, but it does not call.
      return;
    }
    std::vector<float> in(3 * 2'000'000), out(2'000'000);
    EXPECT_THAT(ranks[rank]->ReduceScatter(out, in),
                HasCode(absl::StatusCode::kAborted));
    if (rank == 0) over.Notify();
  });
}

TEST_P(PeerTest, TheReasonOfAnAbortReachesThePeers) {
  const auto ranks = Make(GetParam(), 2);
  ranks[1]->Abort(absl::ResourceExhaustedError("the disk is full"));
  EXPECT_THAT(ranks[0]->Barrier(),
              Fails(absl::StatusCode::kAborted,
                    "rank 1: it gave up: the disk is full"));
}

INSTANTIATE_TEST_SUITE_P(All, PeerTest,
                         ::testing::Values(Transport::kShm, Transport::kTcp),
                         [](const auto& test) { return NameOf(test.param); });

// Rank 1 joins as `intruder` says while rank 0 waits for the right one.
std::pair<absl::Status, absl::Status> IntrudeByShm(const ShmOptions& intruder) {
  const UniqueFd memory = CreateSharedMemory("test", 1 << 20).value();
  std::pair<absl::Status, absl::Status> verdicts;
  OnEveryRank(2, [&](int rank) {
    ShmOptions options = rank == 0 ? TestShmOptions(0, 2) : intruder;
    options.connect_timeout = absl::Seconds(20);
    (rank == 0 ? verdicts.first : verdicts.second) =
        ConnectShm(options, memory.get()).status();
  });
  return verdicts;
}

TEST(ShmTest, AStaleEpochAWrongSecretAndAnotherJobAreRefused) {
  ShmOptions stale = TestShmOptions(1, 2);
  stale.epoch = 6;
  ShmOptions stranger = TestShmOptions(1, 2);
  stranger.secret = std::string(32, 't');
  ShmOptions other_job = TestShmOptions(1, 2);
  other_job.job_id = "job-other";
  for (const ShmOptions& intruder : {stale, stranger, other_job}) {
    const auto [waiting, intruding] = IntrudeByShm(intruder);
    EXPECT_FALSE(waiting.ok());
    EXPECT_FALSE(intruding.ok());
    // Whoever looked first says why; the other may hear only that it gave up.
    EXPECT_TRUE(absl::IsPermissionDenied(waiting) ||
                absl::IsPermissionDenied(intruding));
  }
}

TEST(ShmTest, ARankThatDoesNotComeIsAnErrorWithItsNumber) {
  const UniqueFd memory = CreateSharedMemory("test", 1 << 20).value();
  ShmOptions options = TestShmOptions(0, 2);
  options.connect_timeout = absl::Milliseconds(30);
  EXPECT_THAT(ConnectShm(options, memory.get()).status(),
              Fails(absl::StatusCode::kDeadlineExceeded, "rank 1"));
}

TEST(ShmTest, ARankIsThereOnceAndTheMemoryIsUsedOnce) {
  const UniqueFd memory = CreateSharedMemory("test", 1 << 20).value();
  {
    const auto alone = ConnectShm(TestShmOptions(0, 1), memory.get());
    FT_ASSERT_OK(alone.status());
    EXPECT_THAT(ConnectShm(TestShmOptions(0, 1), memory.get()).status(),
                HasCode(absl::StatusCode::kAlreadyExists));
  }
  EXPECT_THAT(ConnectShm(TestShmOptions(0, 1), memory.get()).status(),
              HasCode(absl::StatusCode::kFailedPrecondition));
}

TEST(ShmTest, MemoryThatIsTooSmallOrCouldShrinkIsRefused) {
  const UniqueFd small = CreateSharedMemory("test", 4096).value();
  EXPECT_THAT(ConnectShm(TestShmOptions(0, 2), small.get()).status(),
              HasCode(absl::StatusCode::kInvalidArgument));
  const UniqueFd open(memfd_create("test", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(open.get(), 1 << 20), 0);
  EXPECT_THAT(ConnectShm(TestShmOptions(0, 2), open.get()).status(),
              Fails(absl::StatusCode::kInvalidArgument, "sealed"));
  EXPECT_THAT(
      ConnectShm(TestShmOptions(0, kMaxShmRanks + 1), small.get()).status(),
      HasCode(absl::StatusCode::kInvalidArgument));
}

TEST(ThreadTest, ARankThatDoesNotComeIsAnErrorOnTheOthers) {
  const auto ranks = MakeThreadCollectives(3, absl::Milliseconds(50));
  OnEveryRank(2, [&](int rank) {
    EXPECT_THAT(ranks[rank]->Barrier(), HasCode(absl::StatusCode::kAborted));
  });
}

// Connects rank 1 as `intruder` says while rank 0 waits for the right one.
std::pair<absl::Status, absl::Status> Intrude(const TcpOptions& intruder) {
  MemoryRendezvousStore store;
  std::pair<absl::Status, absl::Status> verdicts;
  OnEveryRank(2, [&](int rank) {
    TcpOptions options = rank == 0 ? TestTcpOptions(0, 2) : intruder;
    options.connect_timeout =
        rank == 0 ? absl::Milliseconds(300) : absl::Seconds(20);
    (rank == 0 ? verdicts.first : verdicts.second) =
        ConnectTcp(options, store).status();
  });
  return verdicts;
}

TEST(TcpTest, AStaleEpochAndAWrongSecretAreRefusedByBothSides) {
  TcpOptions stale = TestTcpOptions(1, 2);
  stale.epoch = 6;
  TcpOptions stranger = TestTcpOptions(1, 2);
  stranger.secret = std::string(kSecretBytes, 't');
  TcpOptions other_job = TestTcpOptions(1, 2);
  other_job.job_id = "job-other";
  for (const auto& [intruder, why] :
       {std::pair{stale, "epoch 6, not 7"}, std::pair{stranger, "secret"},
        std::pair{other_job, "another job"}}) {
    const auto [waiting, intruding] = Intrude(intruder);
    EXPECT_THAT(waiting, Fails(absl::StatusCode::kDeadlineExceeded, why));
    EXPECT_THAT(intruding, HasCode(absl::StatusCode::kPermissionDenied));
  }
}

TEST(TcpTest, AStrangerThatSaysNothingOrNonsenseDoesNotKeepTheRankOut) {
  MemoryRendezvousStore store;
  const internal::Deadline deadline = internal::After(absl::Seconds(20));
  std::vector<UniqueFd> strangers;
  OnEveryRank(2, [&](int rank) {
    if (rank == 1) {
      const std::string address = store.Get("tcp/0", absl::Seconds(20)).value();
      for (const size_t size : {1, 88, 500}) {
        strangers.push_back(internal::Connect(address, deadline).value());
        internal::SendAll(strangers.back().get(), std::string(size, 'x'),
                          deadline)
            .IgnoreError();  // It may have been hung up on already.
        shutdown(strangers.back().get(), SHUT_WR);
      }
    }
    FT_EXPECT_OK(ConnectTcp(TestTcpOptions(rank, 2), store).status());
  });
}

TEST(TcpTest, AShortSecretIsRefused) {
  MemoryRendezvousStore store;
  TcpOptions options = TestTcpOptions(0, 2);
  options.secret = "short";
  EXPECT_THAT(ConnectTcp(options, store).status(),
              HasCode(absl::StatusCode::kInvalidArgument));
}

// A rank of epoch 7 with the secret "ssss..." meets another.
absl::StatusOr<int> MeetStranger(const internal::Identity& stranger) {
  int ends[2];
  FT_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  UniqueFd a(ends[0]), b(ends[1]);
  const internal::Deadline deadline = internal::After(absl::Seconds(20));
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
                                  internal::After(absl::Seconds(20))),
              HasCode(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace ft
