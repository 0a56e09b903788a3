// SPDX-License-Identifier: Apache-2.0
//
// What leaves the process, and when: after the commit, or as a refusal.

#include "coordinator/committer.h"

#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "coordinator/memory_job_store.h"
#include "coordinator/reasons.h"
#include "tests/coordinator/core_world.h"
#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using testing::CoreWorld;
using testing::HasCode;

// Keeps what is released, and checks that it is durable by then.
class Sink : public EffectSink {
 public:
  explicit Sink(MemoryJobStore& store) : store_(store) {}

  void Release(Effect effect) override {
    absl::MutexLock hold(&mutex_);
    if (const auto* reply = std::get_if<Reply>(&effect)) {
      v1::Job job;
      job.ParseFromString(reply->response);
      was_durable_ &= !reply->status.ok() || store_.GetJob(job.job_id()).ok();
      replies_[reply->ticket] = *reply;
    }
    if (const auto* order = std::get_if<ToWorker>(&effect)) {
      orders_.push_back(order->message);
    }
  }
  void Committed(absl::Duration, size_t) override {}
  void Fatal(const absl::Status& error) override {
    absl::MutexLock hold(&mutex_);
    fatal_ = error;
  }

  Reply WaitFor(uint64_t ticket) {
    absl::MutexLock hold(&mutex_);
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return replies_.contains(ticket);
    };
    mutex_.Await(absl::Condition(&there));
    return replies_[ticket];
  }
  absl::Status WaitForFatal() {
    absl::MutexLock hold(&mutex_);
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !fatal_.ok();
    };
    mutex_.Await(absl::Condition(&there));
    return fatal_;
  }
  void WaitForOrder(bool (v1::ConnectResponse::*has)() const) {
    absl::MutexLock hold(&mutex_);
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return std::ranges::any_of(orders_,
                                 [&](const auto& m) { return (m.*has)(); });
    };
    mutex_.Await(absl::Condition(&there));
  }
  bool was_durable() {
    absl::MutexLock hold(&mutex_);
    return was_durable_;
  }

 private:
  MemoryJobStore& store_;
  absl::Mutex mutex_;
  bool was_durable_ ABSL_GUARDED_BY(mutex_) = true;
  std::map<uint64_t, Reply> replies_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::ConnectResponse> orders_ ABSL_GUARDED_BY(mutex_);
  absl::Status fatal_ ABSL_GUARDED_BY(mutex_);
};

class CommitterTest : public ::testing::Test {
 protected:
  void Submit(uint64_t ticket) {
    SubmitCommand submit;
    submit.spec = CoreWorld::Spec();
    submit.request = CoreWorld::MakeRequest(Method::kCreateJob,
                                            absl::StrCat("r", ticket), "body");
    committer_->Post({.ticket = ticket, .what = std::move(submit)});
  }
  void Attach() {
    WorkerCommand command{.session = 1, .message = {}};
    v1::Attach& attach = *command.message.mutable_attach();
    attach.set_worker_id("w-1");
    attach.set_instance_id("i");
    attach.mutable_inventory()->add_slots();
    attach.add_models()->set_name("tiny");
    committer_->Post({.what = std::move(command)});
  }

  RealClock clock_;
  MemoryJobStore store_;
  Sink sink_{store_};
  std::unique_ptr<Committer> committer_ =
      Committer::Start(Timers(), store_, clock_, sink_).value();
};

TEST_F(CommitterTest, NothingIsToldBeforeItIsDurable) {
  for (uint64_t ticket = 1; ticket <= 500; ++ticket) Submit(ticket);
  for (uint64_t ticket = 1; ticket <= 500; ++ticket) {
    EXPECT_TRUE(sink_.WaitFor(ticket).status.ok());
  }
  EXPECT_TRUE(sink_.was_durable());
}

TEST_F(CommitterTest, AFullStoreRefusesThenGoesOnByItself) {
  Submit(1);
  ASSERT_TRUE(sink_.WaitFor(1).status.ok());
  store_.FailCommits(1, absl::ResourceExhaustedError("disk full"));
  Submit(2);
  const Reply refused = sink_.WaitFor(2);
  EXPECT_THAT(refused.status, HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(ReasonOf(refused.status), "STORE_FULL");
  Submit(3);
  EXPECT_TRUE(sink_.WaitFor(3).status.ok());
  EXPECT_EQ(store_.ListJobs({}).value().size(), 2u);
}

TEST_F(CommitterTest, AnOrderWhoseCommitFailedIsGivenAgain) {
  Submit(1);
  ASSERT_TRUE(sink_.WaitFor(1).status.ok());
  store_.FailCommits(1, absl::ResourceExhaustedError("disk full"));
  Attach();
  sink_.WaitForOrder(&v1::ConnectResponse::has_start_attempt);
  const v1::Job job = store_.ListJobs({}).value().at(0);
  EXPECT_EQ(job.status().state(), v1::JOB_STATE_STARTING);
  EXPECT_GE(job.status().attempts(0).epoch(), 1u);
}

TEST_F(CommitterTest, AnyOtherErrorOfTheStoreIsFatal) {
  store_.FailCommits(1, absl::InternalError("disk I/O error"));
  Submit(1);
  EXPECT_THAT(sink_.WaitForFatal(), HasCode(absl::StatusCode::kInternal));
}

}  // namespace
}  // namespace ft
