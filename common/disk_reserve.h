// SPDX-License-Identifier: Apache-2.0
//
// Space kept back on a disk: a file of real blocks and no content. When the
// disk is full it is given back, so that what was begun can be finished and
// cleaned up; when there is room again it is taken again.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace ft {

// Thread-safe; Keep and Release write to the disk.
class DiskReserve {
 public:
  struct Options {
    std::string path;
    int64_t bytes = 0;  // 0: none is kept.
    // What the disk has left.
    std::function<absl::StatusOr<int64_t>()> free_bytes;
  };
  explicit DiskReserve(Options options) : options_(std::move(options)) {}

  // Takes over the file of a process before us, or takes the space if the disk
  // has twice as much: with less, the reserve alone would fill it again. To be
  // called now and then.
  void Keep();

  // Something that must be written found no room.
  void Release();

  // Whether it was given back and there was no room for it since: the disk is
  // as good as full. False where there never was room for it.
  bool is_spent() const { return state_ == State::kSpent; }

  // What it keeps back now.
  int64_t kept_bytes() const {
    return state_ == State::kKept ? options_.bytes : 0;
  }

 private:
  enum class State { kNone, kKept, kSpent };

  absl::Status Take();

  const Options options_;
  absl::Mutex mutex_;  // Over the file, so held while the disk works.
  std::atomic<State> state_ = State::kNone;
};

}  // namespace ft
