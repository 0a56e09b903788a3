// SPDX-License-Identifier: Apache-2.0
//
// The rank's end of the socketpair to its daemon: ranks.proto, each message
// with its length before it. One thread reads, one writes; end of file means
// that the daemon is gone, and then the rank ends at once: nobody could use
// what it does.

#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/file.h"
#include "common/frame.h"
#include "train/link.h"

namespace ft {

class DaemonLink : public Link {
 public:
  // Takes the descriptor. When the daemon closes its end, calls `daemon_gone`
  // from the reading thread; it must not return to waiting callers (the
  // program's is _exit).
  DaemonLink(int fd, void (*daemon_gone)());
  ~DaemonLink() override;

  DaemonLink(const DaemonLink&) = delete;
  DaemonLink& operator=(const DaemonLink&) = delete;

  // The first message of the daemon.
  // DEADLINE_EXCEEDED: none within `timeout`.
  absl::StatusOr<v1::RankStart> ReceiveStart(absl::Duration timeout);

  // The shared memory that came with it; closed if none did.
  UniqueFd TakeSharedMemory();

  void Ready(const v1::RankReadyNotice& notice) override;
  absl::Status WaitForBegin(absl::Duration timeout) override;
  void Step(const v1::StepMetrics& step) override;
  void SnapshotSealed(const v1::SnapshotSealed& sealed) override;
  void Checkpointed(const v1::CheckpointFiles& files) override;
  void Exported(const v1::ExportFiles& files) override;
  void Tell(const v1::Event& event) override;
  void Exit(const v1::RankExit& exit) override;
  RankRequests TakeRequests() override;
  absl::Status SetKey(absl::string_view key, absl::string_view value) override;
  absl::StatusOr<std::string> GetKey(absl::string_view key,
                                     absl::Duration timeout) override;

 private:
  void ReadLoop();
  void WriteLoop();
  void Take(v1::ToRank message, FrameAndFdReader& frames);
  void Send(v1::FromRank message);

  const int fd_;
  void (*const daemon_gone_)();

  absl::Mutex mutex_;  // Never held while reading or writing.
  std::optional<v1::RankStart> start_ ABSL_GUARDED_BY(mutex_);
  UniqueFd shared_memory_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> keys_ ABSL_GUARDED_BY(mutex_);
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  RankRequests requests_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::FromRank> unsent_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread reader_;
  std::thread writer_;
};

}  // namespace ft
