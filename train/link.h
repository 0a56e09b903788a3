// SPDX-License-Identifier: Apache-2.0
//
// What a rank says and hears while it runs. DaemonLink speaks to ft-worker;
// NullLink is a rank that stands alone. The trainer sees neither.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ft/v1/events.pb.h"
#include "ft/v1/ranks.pb.h"

namespace ft {

// What the daemon wants of the rank at the next step boundary. Read without
// blocking; a request stays set until it is taken.
struct RankRequests {
  bool checkpoint = false;
  bool yield = false;
  bool stop = false;
};

// Thread-safe. No call but WaitForBegin and GetKey ever blocks: a slow daemon
// costs memory, never a step.
class Link {
 public:
  virtual ~Link() = default;

  // Says that everything is loaded.
  virtual void Ready(const v1::RankReadyNotice& notice) = 0;

  // Returns when every rank of the gang is ready.
  // DEADLINE_EXCEEDED: not within `timeout`. CANCELLED: told to stop.
  virtual absl::Status WaitForBegin(absl::Duration timeout) = 0;

  virtual void Step(const v1::StepMetrics& step) = 0;
  virtual void SnapshotSealed(const v1::SnapshotSealed& sealed) = 0;
  virtual void Checkpointed(const v1::CheckpointFiles& files) = 0;
  virtual void Exported(const v1::ExportFiles& files) = 0;
  virtual void Tell(const v1::Event& event) = 0;

  // Says the last words and returns when they have left the process.
  virtual void Exit(const v1::RankExit& exit) = 0;

  // Takes what was asked for since the last call (`checkpoint` is cleared,
  // `yield` and `stop` stay).
  virtual RankRequests TakeRequests() = 0;

  // The rendezvous: keys set once, read by every rank of the attempt.
  virtual absl::Status SetKey(absl::string_view key,
                              absl::string_view value) = 0;
  // DEADLINE_EXCEEDED: nobody set it within `timeout`.
  virtual absl::StatusOr<std::string> GetKey(absl::string_view key,
                                             absl::Duration timeout) = 0;
};

}  // namespace ft
