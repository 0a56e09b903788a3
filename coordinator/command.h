// SPDX-License-Identifier: Apache-2.0
//
// What the core can be told. Whatever a decision needs from outside (a stored
// reply, a parsed manifest, the time) comes in with the command, so that the
// core stays pure.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "ft/v1/artifacts.pb.h"
#include "ft/v1/jobs.pb.h"
#include "ft/v1/workers.pb.h"

namespace ft {

// The mutations that carry a request_id.
enum class Method {
  kCreateJob = 1,
  kCancelJob = 2,
  kDeleteJob = 3,
  kCommitArtifact = 4,
  kDeleteArtifact = 5,
  kResumeJob = 6,
  kReleaseWorker = 7,
};

// A mutation as its caller names it.
struct RequestKey {
  std::string principal;
  std::string request_id;
  Method method = Method::kCreateJob;
  std::string body_sha256;  // 32 bytes, over the request without its id.
};

// What such a mutation was answered; kept with its effect.
struct StoredReply {
  RequestKey key;
  std::string reply;  // The serialised answer.
};

// A mutation, and what the store already knows of its request_id.
struct Request {
  RequestKey key;
  std::optional<StoredReply> stored;
};

struct SubmitCommand {
  Request request;
  v1::JobSpec spec;  // Checked, every default fixed.
  bool validate_only = false;
};

struct CancelCommand {
  Request request;
  std::string job_id;
};

struct ResumeCommand {
  // A FAILED job as the store has it, for the core keeps little of jobs that
  // have ended.
  struct Failed {
    v1::Job job;  // Attempts included.
    int64_t last_event_seq = 0;
    // Whether the blobs that it needs are all there.
    absl::Status inputs;
  };

  Request request;
  std::string job_id;
  std::optional<Failed> failed;
};

struct DeleteCommand {
  Request request;
  std::string job_id;
};

// A manifest whose blobs are all stored.
struct CommitArtifactCommand {
  Request request;
  v1::CommitArtifactRequest commit;
  v1::Manifest manifest;
};

struct DeleteArtifactCommand {
  Request request;
  std::string name;
};

struct ReleaseWorkerCommand {
  Request request;
  std::string worker_id;
};

// A message of a worker's stream; Attach is the first of each session.
struct WorkerCommand {
  uint64_t session = 0;  // Never 0, never used twice.
  v1::ConnectRequest message;
};

// A worker's stream is gone.
struct DetachCommand {
  uint64_t session = 0;
};

// The newest points that are stored of an attempt; of one that is over the core
// learns only that they are there.
struct ProgressCommand {
  std::string job_id;
  uint64_t epoch = 0;
  std::optional<v1::StepMetrics> progress;
  std::optional<v1::StepMetrics> evaluation;
};

// A step was taken again and had other bits.
struct DivergedCommand {
  std::string job_id;
  uint64_t epoch = 0;
  int64_t step = 0;
  std::string message;
};

// Time has passed.
struct TickCommand {};

// The queue and the fleet may fit now.
struct ScheduleCommand {};

struct Command {
  // Names the waiting caller in the Reply effect; 0: nobody waits.
  uint64_t ticket = 0;
  std::variant<SubmitCommand, CancelCommand, ResumeCommand, DeleteCommand,
               CommitArtifactCommand, DeleteArtifactCommand,
               ReleaseWorkerCommand, WorkerCommand, DetachCommand,
               ProgressCommand, DivergedCommand, TickCommand, ScheduleCommand>
      what;
};

}  // namespace ft
