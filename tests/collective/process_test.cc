// SPDX-License-Identifier: Apache-2.0
//
// Ranks that are processes: they meet through files or in memory, and one that
// is killed is an error on all others.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numeric>

#include "collective/file_rendezvous_store.h"
#include "collective/shm_collective.h"
#include "collective/thread_collective.h"
#include "common/shared_memory.h"
#include "tests/testing/shm_ranks.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tcp_ranks.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::OnEveryRank;
using testing::TestShmOptions;
using testing::TestTcpOptions;

constexpr size_t kCount = 10'000;

std::vector<float> Values(int rank, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = 1.0f / static_cast<float>(1 + i * 31 % 977 + rank * 7);
  }
  return values;
}

// Runs `rank_main` in a child for each rank; what it returns is the exit code.
// The parameter: over shared memory, or over TCP.
class ProcessTest : public ::testing::TestWithParam<bool> {
 protected:
  ~ProcessTest() override {
    for (const pid_t pid : children_) {
      if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
      }
    }
  }

  void Start(int size, const std::function<int(Collective& ranks)>& rank_main) {
    for (int rank = 0; rank < size; ++rank) {
      const pid_t pid = fork();
      ASSERT_GE(pid, 0);
      if (pid == 0) {
        alarm(60);
        const auto ranks = Connect(rank, size);
        _exit(ranks.ok() ? rank_main(**ranks) : 99);
      }
      children_.push_back(pid);
    }
  }

  absl::StatusOr<std::unique_ptr<Collective>> Connect(int rank, int size) {
    if (GetParam()) {
      return ConnectShm(TestShmOptions(rank, size), memory_.get());
    }
    FileRendezvousStore store(dir_.path());
    return ConnectTcp(TestTcpOptions(rank, size), store);
  }

  // The exit code of a rank, or minus the signal that ended it.
  int Wait(int rank) {
    int status = 0;
    waitpid(std::exchange(children_[rank], 0), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  testing::TestDir dir_;
  const UniqueFd memory_ = CreateSharedMemory("test", 1 << 20).value();
  std::vector<pid_t> children_;
};

TEST_P(ProcessTest, ProcessesGetTheBitsOfThreads) {
  const int size = 3;
  Start(size, [this](Collective& ranks) {
    std::vector<float> out(kCount);
    const auto in = Values(ranks.rank(), kCount * ranks.size());
    if (!ranks.ReduceScatter(out, in).ok()) return 1;
    const std::string bytes(reinterpret_cast<const char*>(out.data()),
                            out.size() * sizeof(float));
    const std::string path = dir_ / std::to_string(ranks.rank());
    return WriteFileAtomic(path, bytes).ok() ? 0 : 2;
  });
  for (int rank = 0; rank < size; ++rank) EXPECT_EQ(Wait(rank), 0);

  const auto threads = MakeThreadCollectives(size);
  OnEveryRank(size, [&](int rank) {
    std::vector<float> out(kCount);
    FT_ASSERT_OK(threads[rank]->ReduceScatter(
        out, Values(rank, kCount * static_cast<size_t>(size))));
    const std::string bytes =
        ReadFile(dir_ / std::to_string(rank), 1 << 20).value();
    ASSERT_EQ(bytes.size(), kCount * sizeof(float));
    EXPECT_EQ(std::memcmp(bytes.data(), out.data(), bytes.size()), 0);
  });
}

TEST_P(ProcessTest, AKilledRankIsAnErrorOnAllOthers) {
  Start(3, [](Collective& ranks) {
    std::vector<float> out(kCount), in(kCount * 3);
    for (int call = 0;; ++call) {
      if (ranks.rank() == 1 && call == 5) raise(SIGKILL);
      const absl::Status status = ranks.ReduceScatter(out, in);
      if (!status.ok()) return absl::IsAborted(status) ? 42 : 43;
    }
  });
  EXPECT_EQ(Wait(1), -SIGKILL);
  EXPECT_EQ(Wait(0), 42);
  EXPECT_EQ(Wait(2), 42);
}

INSTANTIATE_TEST_SUITE_P(All, ProcessTest, ::testing::Bool(),
                         [](const auto& test) {
                           return test.param ? "Shm" : "Tcp";
                         });

TEST(FileRendezvousStoreTest, AKeyIsSetOnceAndWaitedFor) {
  const testing::TestDir dir;
  FileRendezvousStore store(dir.path());
  EXPECT_THAT(store.Get("tcp/0", absl::ZeroDuration()).status(),
              testing::HasCode(absl::StatusCode::kDeadlineExceeded));
  FT_ASSERT_OK(store.Set("tcp/0", "value"));
  FT_ASSERT_OK(store.Set("tcp/0", "value"));
  EXPECT_THAT(store.Set("tcp/0", "other"),
              testing::HasCode(absl::StatusCode::kAlreadyExists));
  EXPECT_EQ(store.Get("tcp/0", absl::ZeroDuration()).value(), "value");
  EXPECT_THAT(store.Set("..", "v"),
              testing::HasCode(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace ft
