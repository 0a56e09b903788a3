// SPDX-License-Identifier: Apache-2.0
//
// The link of a rank that stands alone (`ft-train run`): progress becomes lines
// on stderr, and Ctrl-C is a request to yield.

#pragma once

#include <atomic>
#include <cstdio>
#include <string>

#include "collective/rendezvous_store.h"
#include "train/link.h"

namespace ft {

struct NullLinkOptions {
  // Where progress is printed; null: nowhere.
  std::FILE* progress = stderr;

  // Set by the signal handler; must outlive the link. Null: never asked.
  const std::atomic<bool>* interrupted = nullptr;

  // Where ranks that do not meet in memory tell their addresses; must outlive
  // the link. Null: nowhere.
  RendezvousStore* rendezvous = nullptr;
};

class NullLink : public Link {
 public:
  explicit NullLink(NullLinkOptions options);

  void Ready(const v1::RankReadyNotice& notice) override;
  absl::Status WaitForBegin(absl::Duration timeout) override;
  void Step(const v1::StepMetrics& step) override;
  void SnapshotSealed(const v1::SnapshotSealed& sealed) override;
  void Checkpointed(const v1::CheckpointFiles& files) override;
  void Exported(const v1::ExportFiles& files) override;
  void Tell(const v1::Event& event) override;
  void Exit(const v1::RankExit& exit) override;
  RankRequests TakeRequests() override;
  // Both FAILED_PRECONDITION without a rendezvous.
  absl::Status SetKey(absl::string_view key, absl::string_view value) override;
  absl::StatusOr<std::string> GetKey(absl::string_view key,
                                     absl::Duration timeout) override;

 private:
  const NullLinkOptions options_;
};

}  // namespace ft
