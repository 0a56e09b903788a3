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
#include "tests/testing/temp_dir.h"

namespace ft::testing {

class LocalCluster {
 public:
  // Timers are shortened to `timer_scale`; contracts in seconds want 1.
  explicit LocalCluster(int workers = 2, double timer_scale = 0.2);
  // Ends everything; a process that is left is a failure of the test.
  ~LocalCluster();

  const TestDir& dir() const { return dir_; }
  Client& client() { return *client_; }
  std::string AdminTokenFile() const;
  std::string WorkerTokenFile() const;
  std::string ModelRoot() const { return dir_ / "models"; }
  // What is in an endpoint file: "http_address" of "coordinator" or "w-1".
  std::string Endpoint(const std::string& program,
                       const std::string& field) const;

  // Both keep folders and ports, as systemd would.
  void StartCoordinator();
  void StartWorker(int index);
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

 private:
  pid_t Spawn(std::vector<std::string> words, const std::string& name);
  void AwaitFile(const std::string& path, const std::string& name);

  const TestDir dir_;
  const double timer_scale_;
  std::map<std::string, pid_t> pids_;
  // The ports of the first start.
  std::map<std::string, std::string> addresses_;
  std::unique_ptr<Client> client_;
};

// The ids of processes whose command line has `text`.
std::vector<pid_t> ProcessesWith(const std::string& text);

}  // namespace ft::testing
