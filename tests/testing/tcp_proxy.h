// SPDX-License-Identifier: Apache-2.0
//
// A network that misbehaves: a relay on loopback that cuts, delays, flips bits,
// swallows one direction, or cuts just before an answer.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/file.h"

namespace ft::testing {

// Thread-safe. Settings hold for bytes that come after them.
class TcpProxy {
 public:
  enum class Direction { kToServer = 0, kToClient = 1 };

  // Relays to `target`, "127.0.0.1:41234".
  explicit TcpProxy(const std::string& target);
  // Cuts everything.
  ~TcpProxy();

  const std::string& address() const { return address_; }

  // Cuts the connection when so many bytes of this direction have passed, once.
  void CutAfter(Direction direction, int64_t bytes);
  // Flips one bit of the byte at this place of the direction, once.
  void FlipAt(Direction direction, int64_t byte);
  // Bytes of the direction vanish, as behind a one-way partition.
  void Swallow(Direction direction, bool is_on);
  // Each read of the direction waits so long.
  void Delay(Direction direction, absl::Duration by);
  // Cuts before the head of an HTTP/2 answer passes: the server has done what
  // the client does not learn. So many times.
  void DropAnswers(int64_t count);
  // Cuts what is connected now.
  void CutAll();

  // Bytes that passed, over all connections.
  int64_t passed(Direction direction) const;
  int64_t connections() const;
  int64_t dropped_answers() const;

 private:
  struct Connection;
  void Accept();
  void Relay(Connection& connection);
  bool Pass(Connection& connection, Direction direction);

  struct Way {
    std::optional<int64_t> cut_at;   // Of `passed`.
    std::optional<int64_t> flip_at;  // The same.
    bool swallows = false;
    absl::Duration delay;
    int64_t passed = 0;
  };

  const std::string target_;
  std::string address_;
  UniqueFd listener_;
  mutable absl::Mutex mutex_;
  Way ways_[2] ABSL_GUARDED_BY(mutex_);
  int64_t answers_to_drop_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t connections_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<int64_t> cuts_{0};  // Of CutAll.
  std::atomic<bool> is_over_{false};
  int relays_ ABSL_GUARDED_BY(mutex_) = 0;  // Threads that run.
  std::thread acceptor_;
};

}  // namespace ft::testing
