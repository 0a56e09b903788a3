// SPDX-License-Identifier: Apache-2.0
//
// The daemons of a soak: a coordinator and workers of several slots under a
// Supervisor, over one folder, with one table of failpoints for all.

#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ctl/client.h"
#include "tests/chaos/supervisor.h"
#include "tests/testing/failpoint_file.h"
#include "tests/testing/invariants.h"

namespace ft::testing {

struct SoakClusterOptions {
  std::string dir;  // Exists, empty.
  std::string program_dir;
  std::string model_dir;  // Becomes the model "tiny-chat".
  int workers = 3;
  int slots = 2;
  double timer_scale = 0.5;
};

// A process of a rank, found by its command line.
struct RankProcess {
  pid_t pid = 0;
  pid_t parent = 0;
  std::string job_id;
  int rank = 0;
};

// Thread-safe once started.
class SoakCluster {
 public:
  // Starts all and waits until every worker is READY.
  static absl::StatusOr<std::unique_ptr<SoakCluster>> Start(
      SoakClusterOptions options);

  const std::string& dir() const { return options_.dir; }
  Supervisor& supervisor() { return *supervisor_; }
  FailpointFile& failpoints() { return *failpoints_; }
  const std::vector<std::string>& worker_names() const { return workers_; }

  // A client of one's own.
  std::unique_ptr<Client> NewClient() const;

  std::vector<RankProcess> Ranks() const;

  // Resident bytes of a daemon; 0: between two lives.
  int64_t ResidentBytes(const std::string& name) const;

  // Whether every worker is READY. Asks the coordinator.
  bool AllReady(Client& client) const;

  // For CheckInvariants, without what clients were told.
  Evidence NewEvidence() const;

 private:
  explicit SoakCluster(SoakClusterOptions options);
  absl::Status StartAll();
  std::vector<std::string> CoordinatorWords() const;
  std::vector<std::string> WorkerWords(const std::string& name) const;
  absl::Status AwaitEndpoint(const std::string& name) const;

  const SoakClusterOptions options_;
  std::map<std::string, std::string> addresses_;  // By flag.
  std::vector<std::string> workers_;
  std::unique_ptr<FailpointFile> failpoints_;
  std::unique_ptr<Supervisor> supervisor_;
};

}  // namespace ft::testing
