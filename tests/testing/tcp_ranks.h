// SPDX-License-Identifier: Apache-2.0
//
// Ranks over loopback TCP, as threads or as processes of the test.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "collective/memory_rendezvous_store.h"
#include "collective/tcp_collective.h"
#include "common/check.h"
#include "tests/testing/rank_threads.h"

namespace ft::testing {

inline TcpOptions TestTcpOptions(int rank, int size) {
  return {.rank = rank,
          .size = size,
          .job_id = "job-test",
          .epoch = 7,
          .secret = std::string(kSecretBytes, 's')};
}

inline std::vector<std::unique_ptr<Collective>> MakeTcpCollectives(
    int size, absl::Duration idle_timeout = absl::Seconds(60)) {
  MemoryRendezvousStore store;
  std::vector<std::unique_ptr<Collective>> ranks(size);
  OnEveryRank(size, [&](int rank) {
    TcpOptions options = TestTcpOptions(rank, size);
    options.idle_timeout = idle_timeout;
    auto collective = ConnectTcp(options, store);
    FT_CHECK(collective.ok());
    ranks[rank] = *std::move(collective);
  });
  return ranks;
}

}  // namespace ft::testing
