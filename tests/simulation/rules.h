// SPDX-License-Identifier: Apache-2.0
//
// What must hold whatever breaks, judged by its own books: the records as they
// are committed, the effects as they are released, and what the model workers
// know to be true. Nothing here asks the core, but for the view of its fleet.

#pragma once

#include <map>
#include <set>
#include <span>
#include <string>

#include "absl/time/time.h"
#include "coordinator/decision.h"
#include "coordinator/fleet.h"
#include "coordinator/memory_job_store.h"
#include "tests/simulation/timeline.h"

namespace ft::testing {

class Rules {
 public:
  explicit Rules(MemoryJobStore& store) : store_(store) {}

  // Empty: nothing was violated so far. The first violation stays.
  const std::string& violation() const { return violation_; }
  void Fail(std::string what) {
    if (violation_.empty()) violation_ = std::move(what);
  }

  // Around a transaction that will succeed.
  void OnCommit(std::span<const Decision> batch, absl::Time wall);
  void AfterCommit(std::span<const Decision> batch);

  // The effect is told now.
  void OnRelease(const Effect& effect);

  // No command waits, and the core wants no cycle: whatever fits was placed.
  void OnIdle(const Fleet& fleet);

  // Every job of the store, from its first event.
  void CheckAll();

  // --- What the model workers know ---
  void RankIsReady(uint64_t epoch, int32_t rank) { ready_[epoch].insert(rank); }
  void MemberIsDone(uint64_t epoch, const std::string& worker_id) {
    done_[epoch].insert(worker_id);
  }
  void MemberEnds(uint64_t epoch, v1::AttemptCause cause, int signal) {
    said_ends_[epoch].insert({cause, signal});
  }

  // --- What clients were told ---
  void Acknowledged(const std::string& job_id) {
    if (!erased_.contains(job_id)) promised_.insert(job_id);
  }

  // Since when nothing acts for the epoch; InfiniteFuture: something does.
  absl::Time EndedSince(uint64_t epoch) const;
  void SetNow(absl::Time now) { now_ = now; }
  const std::map<std::string, Timeline>& timelines() const { return jobs_; }
  bool IsQuarantined(const std::string& worker_id) const {
    return quarantined_.contains(worker_id);
  }

 private:
  struct KnownAttempt {
    std::string job_id;
    v1::Placement placement;
    absl::Time ended = absl::InfiniteFuture();
  };

  void On(const PutJob& put);
  void On(const EraseJob& erase);
  void On(const PutAttempt& put);
  void On(const AppendEvent& append);
  void On(const PutReply& put);
  void On(const PutLastEpoch& put);
  void On(const PutSpoolMark&) {}
  void On(const PutArtifact& put);
  void On(const EraseArtifact&) {}
  void On(const PutWorker& put);
  void On(const AppendAudit& append);
  void OnNewAttempt(const PutAttempt& put);
  void OnEndedAttempt(const v1::Attempt& attempt);
  void OnQuarantine(const v1::Event& event);
  void CheckRow(const std::string& job_id);
  bool Accuses(const Timeline& job, const std::string& worker_id) const;

  MemoryJobStore& store_;
  std::string violation_;
  absl::Time wall_;  // As the core sees it.
  absl::Time now_;   // Of the simulation.

  std::map<std::string, Timeline> jobs_;
  std::map<std::string, Timeline> erased_;
  std::map<std::string, v1::JobState> states_;
  std::map<std::string, int> max_without_progress_;
  std::map<std::string, int64_t> durable_step_;
  std::map<std::string, int> published_;
  std::map<std::string, uint64_t> live_epoch_;  // 0: none.
  std::map<uint64_t, KnownAttempt> attempts_;
  std::set<std::pair<std::string, std::string>> replies_;
  std::set<std::string> worker_events_;
  std::set<std::string> quarantined_;
  std::set<std::string> promised_;
  uint64_t last_epoch_ = 0;
  uint64_t highest_epoch_ = 0;
  uint64_t epochs_before_ = 0;  // The highest before this decision.

  std::map<uint64_t, std::set<int32_t>> ready_;
  std::map<uint64_t, std::set<std::string>> done_;
  std::map<uint64_t, std::set<std::pair<int, int>>> said_ends_;
};

}  // namespace ft::testing
