// SPDX-License-Identifier: Apache-2.0
//
// The core: every decision about jobs, attempts, workers and artifacts. It is
// pure: no I/O, clock, random or thread, so that a simulation runs this very
// code. What it decides becomes visible only after the store has committed it.
//
// Conditions on an attempt are level-triggered: workers report facts (this rank
// is ready, this gang member has ended), the core keeps them, and Evaluate
// draws the conclusions; a conclusion whose commit failed is drawn again.
// See docs/life_of_a_job.md.

#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "coordinator/command.h"
#include "coordinator/decision.h"
#include "coordinator/fleet.h"
#include "coordinator/job_state.h"
#include "coordinator/lease_table.h"
#include "coordinator/rendezvous.h"
#include "coordinator/retry_policy.h"
#include "coordinator/timers.h"
#include "coordinator/worker_health.h"

namespace ft {

// Not thread-safe: the core thread owns it.
class Core {
 public:
  // Goes on from what is durable; workers attach again.
  Core(const Timers& timers, Snapshot snapshot, absl::Time now);

  // Takes one command and returns what follows from it.
  Decision Apply(const Command& command, absl::Time now);

  // Whether a ScheduleCommand would be of use.
  bool wants_schedule() const { return wants_schedule_; }

  // Goes back to what is durable after the commit of `dropped` failed; attached
  // workers and the facts they told stay. Epochs are never used again.
  void Reload(Snapshot snapshot, const std::vector<Decision>& dropped,
              absl::Time now);

  // For tests of invariants.
  const Fleet& fleet() const { return fleet_; }
  std::optional<v1::Job> FindLive(const std::string& job_id) const;

 private:
  // One worker's part of a gang.
  struct Member {
    enum class Phase { kOrdered, kAccepted, kDone, kEnded };
    std::string worker_id;
    Phase phase = Phase::kOrdered;
    std::optional<v1::AttemptEnded> end = {};
  };

  // What is known of a live attempt beyond its row.
  struct LiveAttempt {
    uint64_t epoch = 0;
    std::vector<Member> members;  // members[0] has rank 0.
    std::set<int32_t> ready;
    bool stopping = false;
    absl::Time deadline = absl::InfiniteFuture();  // Observed clock.
  };

  struct LiveJob {
    v1::Job job;
    int64_t last_event_seq = 0;
    std::optional<LiveAttempt> attempt;
    absl::Time not_before = absl::InfinitePast();    // Observed clock.
    absl::Time hold_until = absl::InfiniteFuture();  // Observed clock.
    std::set<std::string> avoid_workers;
    bool skip_newest_checkpoint = false;
    bool has_new_progress = false;
    // The newest step of which a point is stored.
    int64_t reported_step = 0;
  };

  // What is kept of a job that has ended.
  struct EndedJob {
    v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
    int64_t etag = 0;
  };

  // What the core needs of an artifact.
  struct KnownArtifact {
    v1::ArtifactKind kind = v1::ARTIFACT_KIND_UNSPECIFIED;
    std::string manifest_sha256;
    std::string files_sha256;
    std::string job_id;
    int64_t step = 0;
    bool pinned = false;
    absl::Time created;
    absl::Time expires = absl::InfiniteFuture();
  };

  // core.cc
  void Install(Snapshot snapshot);
  void InstallJob(Snapshot::LiveJob row,
                  std::map<std::string, LiveJob>& before);
  void Flush();
  void Emit(Effect effect) { decision_.effects.push_back(std::move(effect)); }
  void Write(Record record) { decision_.records.push_back(std::move(record)); }
  void AnswerError(const absl::Status& status);
  void Answer(const Request& request, std::string response);
  bool AnswerAgain(const Request& request);
  LiveJob* FindJob(const std::string& job_id);
  absl::Status Move(LiveJob& live, JobEvent event);
  void AddEvent(LiveJob& live, v1::EventKind kind, uint64_t epoch,
                std::string message,
                const std::map<std::string, std::string>& fields = {});
  void Touch(const LiveJob& live) { dirty_jobs_.insert(live.job.job_id()); }
  void TouchAttempt(const LiveJob& live);
  static v1::Attempt& AttemptOf(LiveJob& live);
  void Count(Observation::Kind kind, absl::string_view a = "",
             absl::string_view b = "", double value = 0);
  void On(const TickCommand& tick);

  // core_jobs.cc
  void On(const SubmitCommand& submit);
  void On(const CancelCommand& cancel);
  void On(const ResumeCommand& resume);
  absl::Status CheckResume(const ResumeCommand& resume) const;
  absl::Status CheckFailed(const EndedJob& ended,
                           const ResumeCommand& resume) const;
  void On(const DeleteCommand& erase);
  void On(const ProgressCommand& progress);
  void On(const DivergedCommand& diverged);
  absl::Status CheckModel(const v1::JobSpec& spec) const;
  absl::Status CheckExportName(const v1::JobSpec& spec) const;
  void End(LiveJob& live, JobEvent event, absl::string_view reason,
           absl::string_view message);

  // core_attempts.cc
  void On(const ScheduleCommand& schedule);
  std::vector<GangDemand> Demands() const;
  std::vector<WorkerOffer> Offers() const;
  void Place(LiveJob& live, const Gang& gang);
  void ChooseSource(LiveJob& live, v1::Attempt& attempt);
  std::vector<int64_t> SnapshotsOn(const std::string& job_id,
                                   const v1::Placement& placement) const;
  bool WantsSnapshots(const std::string& job_id,
                      const std::string& worker_id) const;
  void OrderStart(LiveJob& live, const Member& member);
  void StopRest(LiveJob& live, absl::string_view why);
  void ChangeAttempt(LiveJob& live, v1::AttemptState state,
                     const std::string& what);
  void MemberEnded(LiveJob& live, Member& member, v1::AttemptEnded end);
  void Evaluate(LiveJob& live);
  void OpenBarrier(LiveJob& live);
  void Finalize(LiveJob& live);
  void FinishAttempt(LiveJob& live);
  AttemptOutcome RecordEnd(LiveJob& live);
  void Judge(LiveJob& live, const AttemptOutcome& outcome);
  void Recover(LiveJob& live, const RetryVerdict& verdict,
               const AttemptOutcome& outcome);
  void Hold(LiveJob& live, const RetryVerdict& verdict);
  void CheckDeadlines(LiveJob& live);
  void FenceSilent(LiveJob& live);
  void TimeOutStart(LiveJob& live);

  // core_workers.cc
  void On(const WorkerCommand& command);
  void On(const DetachCommand& detach);
  void OnAttach(uint64_t session, const v1::Attach& attach);
  void Reconcile(const v1::Attach& attach);
  void ReconcileMember(LiveJob& live, Member& member,
                       const v1::AttachedAttempt* held);
  void OnHeartbeat(uint64_t session, const std::string& worker_id,
                   const v1::Heartbeat& heartbeat);
  void OnUpdate(uint64_t session, const std::string& worker_id,
                const v1::AttemptUpdate& update);
  void OnWorkerEvent(uint64_t session, const std::string& worker_id,
                     const v1::WorkerEvent& event);
  void OnRendezvousSet(uint64_t session, const std::string& worker_id,
                       const v1::RendezvousSet& set);
  void OnRendezvousGet(uint64_t session, const std::string& worker_id,
                       const v1::RendezvousGet& get);
  void OnDrain(const std::string& worker_id);
  void On(const ReleaseWorkerCommand& release);
  void BlameWorkers(LiveJob& live, int64_t step);
  void SuspectAfterHang(const std::string& worker_id);
  void LoseWorker(const std::string& worker_id, v1::AttemptCause cause,
                  const std::string& message);
  void Fence(uint64_t session, const std::string& job_id, uint64_t epoch,
             absl::string_view kind);
  LiveJob* LeasedJob(const std::string& job_id, uint64_t epoch,
                     const std::string& worker_id, Member** member);
  void SendTo(const std::string& worker_id, v1::ConnectResponse message);

  // core_artifacts.cc
  void On(const CommitArtifactCommand& commit);
  void On(const DeleteArtifactCommand& erase);
  void CommitCheckpoint(const CommitArtifactCommand& commit, LiveJob& live);
  void CommitExport(const CommitArtifactCommand& commit, LiveJob& live);
  void CommitOfClient(const CommitArtifactCommand& commit);
  v1::Artifact Store(const CommitArtifactCommand& commit, std::string name,
                     absl::Time expires);
  void EraseArtifactNamed(const std::string& name);
  void KeepNewestCheckpoints(const LiveJob& live);
  void ExpireArtifacts();
  std::vector<std::string> CheckpointsOf(const std::string& job_id) const;

  const Timers timers_;
  ObservedClock clock_;
  Fleet fleet_;
  WorkerHealth health_;
  Rendezvous rendezvous_;
  LeaseTable leases_;
  std::string cluster_key_;
  int64_t incarnation_ = 0;

  std::map<std::string, LiveJob> live_;
  absl::flat_hash_map<std::string, EndedJob> ended_;
  std::map<std::string, KnownArtifact> artifacts_;  // By name.
  std::map<std::pair<uint64_t, std::string>, int64_t> spool_marks_;

  // Replies that a look into the store may not see yet.
  struct RecentReply {
    StoredReply reply;
    absl::Time at;  // Observed clock.
  };
  std::map<std::pair<std::string, std::string>, RecentReply> recent_replies_;

  // Facts about attempts that ended a moment ago: should that not have been
  // committed, Reload draws the conclusion again.
  struct RecentEnd {
    std::vector<Member> members;
    absl::Time at;  // Observed clock.
  };
  std::map<uint64_t, RecentEnd> recent_ends_;

  int64_t last_submit_seq_ = 0;
  uint32_t job_counter_ = 0;
  bool wants_schedule_ = true;
  absl::Time next_progress_store_;  // Observed clock.
  absl::Time next_expiry_;          // Observed clock.
  std::vector<Waiting> waiting_;

  // Of the command that is being applied.
  absl::Time now_;
  uint64_t ticket_ = 0;
  Decision decision_;
  std::set<std::string> dirty_jobs_;
  std::set<std::string> dirty_attempts_;
};

// A digest over the paths, sizes and digests of a manifest's files: equal for
// equal content, whoever wrote it and when.
std::string DigestOfFiles(const v1::Manifest& manifest);

}  // namespace ft
