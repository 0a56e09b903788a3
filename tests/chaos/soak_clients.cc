// SPDX-License-Identifier: Apache-2.0

#include "tests/chaos/soak_clients.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/grpc_status.h"
#include "ctl/output.h"

namespace ft::testing {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(20);

// The coordinator was away, or went away before it answered.
bool IsAway(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsCancelled(status);
}

}  // namespace

SoakClients::SoakClients(SoakCluster& cluster,
                         const std::vector<JobVariant>& variants,
                         SoakClientsOptions options)
    : cluster_(cluster), variants_(variants), options_(options) {
  absl::MutexLock hold(&mutex_);
  memory_.knows_all_jobs = true;
}

SoakClients::~SoakClients() {
  {
    absl::MutexLock hold(&mutex_);
    stopping_ = true;
    given_up_ = true;
  }
  if (submitter_.joinable()) submitter_.join();
  std::vector<std::thread> threads;
  {
    absl::MutexLock hold(&mutex_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

void SoakClients::Run() {
  submitter_ = std::thread([this] { SubmitLoop(); });
}

bool SoakClients::Stop(absl::Duration timeout) {
  absl::MutexLock hold(&mutex_);
  stopping_ = true;
  const auto all_ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return live_ == 0 && ended_.size() == memory_.jobs.size();
  };
  const bool done =
      mutex_.AwaitWithTimeout(absl::Condition(&all_ended), timeout);
  given_up_ = true;
  if (done) return true;
  for (const auto& [request_id, job_id] : memory_.jobs) {
    if (!ended_.contains(job_id)) {
      complaints_.push_back(absl::StrCat(job_id, " did not end"));
    }
  }
  return false;
}

ClientMemory SoakClients::Memory() const {
  absl::MutexLock hold(&mutex_);
  return memory_;
}

std::vector<std::string> SoakClients::complaints() const {
  absl::MutexLock hold(&mutex_);
  return complaints_;
}

std::map<std::string, v1::Job> SoakClients::Ended() const {
  absl::MutexLock hold(&mutex_);
  return ended_;
}

int SoakClients::submitted() const {
  absl::MutexLock hold(&mutex_);
  return static_cast<int>(memory_.jobs.size());
}

void SoakClients::Complain(const std::string& what) {
  absl::MutexLock hold(&mutex_);
  complaints_.push_back(what);
}

void SoakClients::SubmitLoop() {
  std::mt19937_64 random(options_.seed);
  while (true) {
    {
      absl::MutexLock hold(&mutex_);
      const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || live_ < options_.live_jobs;
      };
      mutex_.Await(absl::Condition(&wanted));
      if (stopping_) return;
      ++live_;
    }
    SubmitOne(random());
  }
}

void SoakClients::SubmitOne(uint64_t roll) {
  std::mt19937_64 random(roll);
  std::uniform_real_distribution<double> uniform(0, 1);
  const JobVariant& variant = variants_[random() % variants_.size()];
  v1::CreateJobRequest request;
  *request.mutable_spec() = variant.spec;
  request.set_request_id(absl::StrCat("soak-", roll));
  const bool is_twice = uniform(random) < options_.submitted_twice;
  absl::Duration cancel_after = absl::InfiniteDuration();
  if (uniform(random) < options_.cancelled) {
    cancel_after = absl::Seconds(10 * uniform(random));
  }

  std::string other;
  std::thread again;
  if (is_twice) {
    ++asked_twice_;
    again = std::thread([&] { other = SubmitUntilAnswered(request); });
  }
  const std::string job_id = SubmitUntilAnswered(request);
  if (again.joinable()) again.join();
  if (is_twice && other != job_id) {
    Complain(absl::StrCat("I1: request ", request.request_id(),
                          " was answered with ", job_id, " and with ", other));
  }
  absl::MutexLock hold(&mutex_);
  if (job_id.empty()) {
    --live_;
    return;
  }
  memory_.jobs[request.request_id()] = job_id;
  memory_.results[job_id] = variant.result;
  threads_.emplace_back(
      [this, job_id, cancel_after] { Watch(job_id, cancel_after); });
}

// Empty: refused, which is complained of, or the soak is over.
std::string SoakClients::SubmitUntilAnswered(
    const v1::CreateJobRequest& request) {
  const std::unique_ptr<Client> client = cluster_.NewClient();
  while (true) {
    const absl::StatusOr<v1::Job> job = client->CreateJob(request);
    if (job.ok()) return job->job_id();
    if (!IsAway(job.status())) {
      Complain(absl::StrCat("request ", request.request_id(),
                            " was refused: ", job.status().ToString()));
      return "";
    }
    absl::MutexLock hold(&mutex_);
    if (given_up_) return "";
  }
}

void SoakClients::CancelTwice(const std::string& job_id) {
  const std::unique_ptr<Client> client = cluster_.NewClient();
  for (int answers = 0; answers < 2;) {
    const absl::Status status = client->CancelJob(job_id).status();
    if (IsAway(status)) {
      absl::MutexLock hold(&mutex_);
      if (given_up_) return;
      continue;
    }
    // It may have ended first.
    if (!status.ok() && ReasonOf(status) != "JOB_ENDED" &&
        ReasonOf(status) != "WRONG_STATE") {
      Complain(absl::StrCat("cancel of ", job_id,
                            " was refused: ", status.ToString()));
    }
    ++answers;
  }
}

void SoakClients::Watch(const std::string& job_id,
                        absl::Duration cancel_after) {
  std::thread canceller;
  if (cancel_after < absl::InfiniteDuration()) {
    canceller = std::thread([this, job_id, cancel_after] {
      absl::SleepFor(cancel_after);
      CancelTwice(job_id);
    });
  }
  const std::unique_ptr<Client> client = cluster_.NewClient();
  const absl::Status watched =
      client->WatchJob(job_id, [&](const v1::WatchJobResponse& update) {
        absl::MutexLock hold(&mutex_);
        if (update.has_event()) {
          memory_.events[job_id].push_back(update.event());
        }
        if (update.has_gap()) {
          complaints_.push_back(
              absl::StrCat("I1: a watcher of ", job_id, " was told a gap"));
        }
        return !given_up_;
      });
  if (canceller.joinable()) canceller.join();
  if (!watched.ok()) {
    Complain(
        absl::StrCat("the watch of ", job_id, " ended: ", watched.ToString()));
  }
  bool has_complained = !watched.ok();
  while (true) {
    const absl::StatusOr<v1::Job> job = client->GetJob(job_id);
    absl::MutexLock hold(&mutex_);
    if (job.ok() && IsTerminal(job->status().state())) {
      const v1::JobState state = job->status().state();
      const bool may_be_cancelled = cancel_after < absl::InfiniteDuration();
      if (state != v1::JOB_STATE_SUCCEEDED &&
          !(may_be_cancelled && state == v1::JOB_STATE_CANCELLED)) {
        complaints_.push_back(absl::StrCat(job_id, " ended ", StateText(state),
                                           ": ", job->status().reason(), ": ",
                                           job->status().message()));
      }
      ended_[job_id] = *job;
      --live_;
      return;
    }
    if (!job.ok() && !IsAway(job.status())) {
      complaints_.push_back(
          absl::StrCat("get of ", job_id, ": ", job.status().ToString()));
    }
    if (given_up_) {
      --live_;
      return;
    }
    if (job.ok() && !std::exchange(has_complained, true)) {
      // A stream ends well only after the job has.
      complaints_.push_back(absl::StrCat("the watch of ", job_id,
                                         " ended before the job, which is ",
                                         StateText(job->status().state())));
    }
    const auto never = [] { return false; };
    mutex_.AwaitWithTimeout(absl::Condition(&never), kLook);
  }
}

}  // namespace ft::testing
