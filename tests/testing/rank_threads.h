// SPDX-License-Identifier: Apache-2.0
//
// Runs one function a rank, each on a thread of its own.

#pragma once

#include <functional>
#include <thread>
#include <vector>

namespace ft::testing {

inline void OnEveryRank(int ranks, const std::function<void(int rank)>& run) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace ft::testing
