// SPDX-License-Identifier: Apache-2.0
//
// The users of a soak: they submit, often twice with one request id, cancel,
// and watch every job to its end, and remember what they were told.

#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "ft/v1/job_spec.pb.h"
#include "tests/chaos/soak_cluster.h"

namespace ft::testing {

// One kind of job, and the files of a run of it that nobody disturbed.
struct JobVariant {
  std::string name;
  v1::JobSpec spec;    // Data uploaded.
  std::string job_id;  // Of the undisturbed run.
  std::map<std::string, std::string> result;
};

struct SoakClientsOptions {
  uint64_t seed = 1;
  int live_jobs = 3;
  double cancelled = 0.1;  // Share of jobs.
  double submitted_twice = 0.3;
};

class SoakClients {
 public:
  // `cluster` and `variants` must outlive it.
  SoakClients(SoakCluster& cluster, const std::vector<JobVariant>& variants,
              SoakClientsOptions options);
  // Waits for the watchers.
  ~SoakClients();

  // Keeps jobs alive on a thread of its own until Stop.
  void Run();
  // No more new jobs. Returns when every job has ended or `timeout` is over;
  // false then.
  bool Stop(absl::Duration timeout);

  ClientMemory Memory() const;
  // What was not as it should be, in words.
  std::vector<std::string> complaints() const;
  // Final states by job.
  std::map<std::string, v1::Job> Ended() const;
  int submitted() const;
  int asked_twice() const { return asked_twice_; }

 private:
  void SubmitLoop();
  void SubmitOne(uint64_t roll);
  std::string SubmitUntilAnswered(const v1::CreateJobRequest& request);
  void Watch(const std::string& job_id, absl::Duration cancel_after);
  void CancelTwice(const std::string& job_id);
  void Complain(const std::string& what);

  SoakCluster& cluster_;
  const std::vector<JobVariant>& variants_;
  const SoakClientsOptions options_;
  std::atomic<int> live_ = 0;
  std::atomic<int> asked_twice_ = 0;

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool given_up_ ABSL_GUARDED_BY(mutex_) = false;
  ClientMemory memory_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> complaints_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, v1::Job> ended_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  std::thread submitter_;
};

}  // namespace ft::testing
