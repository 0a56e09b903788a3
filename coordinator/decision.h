// SPDX-License-Identifier: Apache-2.0
//
// What the core decided: records for the store, in one transaction, and effects
// that leave the process only after that transaction is durable.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/command.h"
#include "coordinator/scheduler.h"
#include "ft/v1/admin.pb.h"
#include "ft/v1/artifacts.pb.h"
#include "ft/v1/events.pb.h"
#include "ft/v1/jobs.pb.h"
#include "ft/v1/workers.pb.h"

namespace ft {

// --- Records -----------------------------------------------------------------

// The job's row. Its attempts have rows of their own.
struct PutJob {
  v1::Job job;
};

// The job, its attempts, events and spool marks are gone.
struct EraseJob {
  std::string job_id;
};

struct PutAttempt {
  std::string job_id;
  v1::Attempt attempt;
};

struct AppendEvent {
  v1::Event event;
  std::string actor;
};

struct PutReply {
  StoredReply reply;
  absl::Time at;
};

struct PutLastEpoch {
  uint64_t epoch = 0;
};

// The highest WorkerEvent.seq of an attempt at a worker that is durable.
struct PutSpoolMark {
  uint64_t epoch = 0;
  std::string worker_id;
  int64_t seq = 0;
};

// An artifact's row, and what the core needs of it.
struct ArtifactRow {
  v1::Artifact artifact;
  std::string files_sha256;  // Over the paths and digests of its files.
};

struct PutArtifact {
  ArtifactRow row;
};

struct EraseArtifact {
  std::string name;
};

// What is held against a worker; nothing any more: the row goes.
struct PutWorker {
  std::string worker_id;
  v1::WorkerMarks marks;
};

// Somebody did something to the fleet.
struct AppendAudit {
  absl::Time at;
  std::string principal;
  std::string method;
  std::string resource;
  std::string detail;
};

using Record = std::variant<PutJob, EraseJob, PutAttempt, AppendEvent, PutReply,
                            PutLastEpoch, PutSpoolMark, PutArtifact,
                            EraseArtifact, PutWorker, AppendAudit>;

// --- Effects -----------------------------------------------------------------

// Answers a caller: the serialised response, or the error. An empty answer to a
// call that returns a job means: as it is in the store.
struct Reply {
  uint64_t ticket = 0;
  absl::Status status = {};
  std::string response = {};
  std::string job_id = {};
};

struct ToWorker {
  uint64_t session = 0;
  v1::ConnectResponse message;
};

struct CloseSession {
  uint64_t session = 0;
  absl::Status status;
};

// A durable event, for those who watch.
struct EventHappened {
  v1::Event event;
};

// The job as it now is, attempts included.
struct JobChanged {
  std::shared_ptr<const v1::Job> job;
};

struct JobDeleted {
  std::string job_id;
};

// Which epoch acts for the job; 0: none.
struct LeaseChanged {
  std::string job_id;
  uint64_t epoch = 0;
};

struct FleetChanged {
  std::shared_ptr<const std::vector<v1::WorkerInfo>> workers;
};

struct WaitingChanged {
  std::shared_ptr<const std::vector<Waiting>> waiting;
};

// Something that a metric counts.
struct Observation {
  enum class Kind {
    kTransition,  // a: from, b: to
    kIllegal,
    kAttemptEnded,  // a: cause
    kFenced,        // a: kind of message
    kPlaced,
    kQueueWait,  // value: seconds
    kFinished,   // a: outcome
  };
  Kind kind = Kind::kIllegal;
  std::string a;
  std::string b;
  double value = 0;
};

using Effect = std::variant<Reply, ToWorker, CloseSession, EventHappened,
                            JobChanged, JobDeleted, LeaseChanged, FleetChanged,
                            WaitingChanged, Observation>;

struct Decision {
  std::vector<Record> records;
  std::vector<Effect> effects;
};

// --- What the store knows at a start ---------------------------------------

struct Snapshot {
  struct LiveJob {
    v1::Job job;  // Attempts included.
    int64_t last_event_seq = 0;
  };
  struct EndedJob {
    std::string job_id;
    v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
    int64_t etag = 0;
  };
  struct SpoolMark {
    uint64_t epoch = 0;
    std::string worker_id;
    int64_t seq = 0;
  };
  struct Worker {
    std::string worker_id;
    v1::WorkerMarks marks;
  };

  std::vector<LiveJob> live = {};
  std::vector<EndedJob> ended = {};
  std::vector<ArtifactRow> artifacts = {};
  std::vector<SpoolMark> spool_marks = {};
  std::vector<Worker> workers = {};
  uint64_t last_epoch = 0;
  int64_t last_submit_seq = 0;
  int64_t incarnation = 0;
  std::string cluster_key;  // 32 secret bytes, made with the store.
};

}  // namespace ft
