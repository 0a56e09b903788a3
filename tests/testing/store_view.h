// SPDX-License-Identifier: Apache-2.0
//
// Everything that a coordinator's folder says, read without the coordinator:
// the tables of the store, the metric points, the names of the blobs. What the
// invariants are checked against.

#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ft/v1/artifacts.pb.h"
#include "ft/v1/events.pb.h"
#include "ft/v1/jobs.pb.h"
#include "ft/v1/workers.pb.h"

namespace ft::testing {

struct StoreView {
  struct JobRow {
    int64_t state = 0;
    bool has_ended = false;
    v1::JobSpec spec;
    v1::JobStatus status;
  };
  struct AttemptRow {
    std::string job_id;
    bool has_cause = false;
    v1::Attempt attempt;
  };

  std::string integrity;  // What SQLite finds; "ok".
  uint64_t last_epoch = 0;
  std::string cluster_key;
  std::map<std::string, JobRow> jobs;
  std::map<uint64_t, AttemptRow> attempts;               // By epoch.
  std::map<std::string, std::vector<v1::Event>> events;  // As stored.
  std::vector<v1::Event> all_events;              // In the store's order.
  std::map<std::string, v1::Artifact> artifacts;  // By name.
  // What workers reported of a job, in the order of storing.
  std::map<std::string, std::vector<v1::ReportRequest>> reports;
};

// Reads `data_dir` of a coordinator, which may run or not.
absl::StatusOr<StoreView> ReadStore(const std::string& data_dir);

// Paths of all blobs below `data_dir`.
std::vector<std::string> ListBlobs(const std::string& data_dir);

// "SUCCEEDED" of JOB_STATE_SUCCEEDED.
std::string StateText(int64_t state);

}  // namespace ft::testing
