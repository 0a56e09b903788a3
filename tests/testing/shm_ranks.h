// SPDX-License-Identifier: Apache-2.0
//
// Ranks over shared memory, as threads or as processes of the test.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "collective/shm_collective.h"
#include "common/check.h"
#include "common/shared_memory.h"
#include "tests/testing/rank_threads.h"

namespace ft::testing {

inline ShmOptions TestShmOptions(int rank, int size) {
  return {.rank = rank,
          .size = size,
          .job_id = "job-test",
          .epoch = 7,
          .secret = std::string(32, 's')};
}

inline std::vector<std::unique_ptr<Collective>> MakeShmCollectives(
    int size, absl::Duration idle_timeout = absl::Seconds(60),
    int64_t bytes_per_rank = kSharedMemoryBytesPerRank) {
  const auto memory = CreateSharedMemory("test", size * bytes_per_rank);
  FT_CHECK(memory.ok());
  std::vector<std::unique_ptr<Collective>> ranks(size);
  OnEveryRank(size, [&](int rank) {
    ShmOptions options = TestShmOptions(rank, size);
    options.idle_timeout = idle_timeout;
    auto collective = ConnectShm(options, memory->get());
    FT_CHECK(collective.ok());
    ranks[rank] = *std::move(collective);
  });
  return ranks;
}

}  // namespace ft::testing
