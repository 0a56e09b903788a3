// SPDX-License-Identifier: Apache-2.0
//
// The real programs of one small cluster, over a folder of the test: a
// coordinator, workers of one slot, the model tiny-chat. Any of them can be
// killed and started again; when it goes, no process of it is left.

#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ctl/client.h"
#include "ft/v1/jobs.pb.h"
#include "tests/testing/invariants.h"
#include "tests/testing/tcp_proxy.h"
#include "tests/testing/temp_dir.h"

namespace ft::testing {

struct LocalClusterOptions {
  int workers = 2;
  // Timers are shortened to this; contracts in seconds want 1.
  double timer_scale = 0.2;
  // Where the programs are; empty: those of this build.
  std::string program_dir = "";
  // Of common/failpoint.h; empty: none.
  std::string failpoints = "";
  // Of the way from the workers to the coordinator, and back.
  absl::Duration delay = absl::ZeroDuration();
  // Whether a broken invariant is a failure of the test.
  bool expects_invariants = true;
};

class LocalCluster {
 public:
  explicit LocalCluster(int workers = 2, double timer_scale = 0.2)
      : LocalCluster(LocalClusterOptions{.workers = workers,
                                         .timer_scale = timer_scale}) {}
  explicit LocalCluster(LocalClusterOptions options);
  // Ends everything; a process that is left is a failure of the test, and so is
  // a broken invariant (tests/testing/invariants.h).
  ~LocalCluster();

  const TestDir& dir() const { return dir_; }
  Client& client() { return *client_; }
  std::string AdminTokenFile() const;
  std::string WorkerTokenFile() const;
  std::string ModelRoot() const { return dir_ / "models"; }
  // Where worker `worker` keeps its local snapshots.
  std::string SnapshotDir(int worker) const;
  // What is in an endpoint file: "http_address" of "coordinator" or "w-1".
  std::string Endpoint(const std::string& program,
                       const std::string& field) const;

  // Both keep folders and ports, as systemd would.
  void StartCoordinator();
  void StartWorker(int index, int slots = 1);
  // Sends the signal and waits for the end.
  void EndCoordinator(int signal);
  void EndWorker(int index, int signal);

  // Submits a job file (text; its data lies in examples/).
  v1::Job Submit(const std::string& yaml);
  // Polls until `is_so`; after a minute the test fails.
  v1::Job WaitFor(const std::string& job_id,
                  const std::function<bool(const v1::Job&)>& is_so);
  v1::Job WaitForEnd(const std::string& job_id);
  // Pids of the job's ft-train processes by rank; empty: none runs.
  std::map<int, pid_t> Ranks(const std::string& job_id) const;
  // Digest of each file of the job's result, by path.
  std::map<std::string, std::string> Result(const v1::Job& job);
  std::vector<v1::Event> Events(const std::string& job_id);
  // The points of the steps, by step; evaluations apart.
  std::map<int64_t, v1::StepMetrics> Steps(const std::string& job_id);

  // Checks the invariants now; what is known to clients may be filled in. At
  // rest only if every daemon lives and every job has ended; waits for it then.
  std::vector<std::string> CheckInvariants(const ClientMemory& clients = {});

 private:
  pid_t Spawn(std::vector<std::string> words, const std::string& name);
  void AwaitFile(const std::string& path, const std::string& name);
  std::string Program(const std::string& name) const;
  bool CanRest();

  const TestDir dir_;
  const LocalClusterOptions options_;
  std::map<std::string, pid_t> pids_;
  // The ports of the first start.
  std::map<std::string, std::string> addresses_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<TcpProxy> way_;  // Where there is a delay.
};

// The ids of processes whose command line has `text`.
std::vector<pid_t> ProcessesWith(const std::string& text);

// Whether there is none any more, at the latest in 10 s: ranks die with their
// worker, but take a moment to give their memory back.
bool AreGone(const std::string& text);

}  // namespace ft::testing
