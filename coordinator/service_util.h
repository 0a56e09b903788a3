// SPDX-License-Identifier: Apache-2.0
//
// What the services share: unary calls that are finished from wherever the work
// was done, and streams that pull what is new when they are woken. Included by
// the services' .cc files only, for it includes grpcpp.

#pragma once

#include <grpcpp/grpcpp.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/grpc_status.h"
#include "coordinator/access.h"
#include "coordinator/metrics.h"
#include "coordinator/task_pool.h"

namespace ft {

// The authorization header of a call.
inline std::optional<absl::string_view> AuthorizationOf(
    const std::multimap<grpc::string_ref, grpc::string_ref>& metadata) {
  const auto header = metadata.find("authorization");
  if (header == metadata.end()) return std::nullopt;
  return absl::string_view(header->second.data(), header->second.size());
}

// Who calls; a caller whom no check let in has no right, so the least role.
// Asked of each call: gRPC's auth context is the connection's, so what one call
// leaves there the others find, and it stays.
inline Principal CallerOf(const grpc::ServerContextBase& context,
                          const TokenTable& tokens) {
  return Authenticate(tokens, AuthorizationOf(context.client_metadata()))
      .value_or(Principal{Role::kWorker, std::string(RoleName(Role::kWorker))});
}

// Starts a unary call; `start` gets the function that ends it.
template <typename Response, typename Start>
grpc::ServerUnaryReactor* Unary(grpc::CallbackServerContext* context,
                                Response* response, const char* method,
                                CoordinatorMetrics& metrics, Start start) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Time began = absl::Now();
  start([reactor, response, method, &metrics,
         began](absl::StatusOr<Response> result) {
    const absl::Status status = result.status();
    if (result.ok()) *response = *std::move(result);
    metrics.RpcDone(method, absl::StatusCodeToString(status.code()),
                    absl::Now() - began);
    reactor->Finish(ToGrpcStatus(status));
  });
  return reactor;
}

// A server stream that reads what is new on the pool, writes it, and waits
// until it is woken. Deletes itself when the call is over.
template <typename Response>
class PulledStream : public grpc::ServerWriteReactor<Response> {
 public:
  struct Batch {
    std::vector<Response> messages;
    bool more = false;      // Pull again at once.
    bool finished = false;  // The stream ends well after these.
  };
  using Pull = std::function<absl::StatusOr<Batch>()>;

  explicit PulledStream(TaskPool& pool) : pool_(pool) {}

  // Begins. `pull` is called on the pool, never twice at once; it may own what
  // calls Wake.
  void Start(Pull pull) {
    pull_ = std::move(pull);
    pool_.Run([this] { RunPull(); });
  }

  // There may be news. From any thread; does not block.
  void Wake() {
    absl::MutexLock hold(&mutex_);
    if (is_over_) return;
    if (is_busy_) {
      wake_again_ = true;
      return;
    }
    is_busy_ = true;
    pool_.Run([this] { RunPull(); });
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock hold(&mutex_);
      if (!ok) is_cancelled_ = true;
      unsent_.pop_front();
    }
    Continue();
  }

  void OnCancel() override {
    {
      absl::MutexLock hold(&mutex_);
      is_cancelled_ = true;
      if (is_busy_ || is_over_) return;
      is_over_ = true;
    }
    this->Finish(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    pull_ = nullptr;  // Nobody wakes us any more.
    delete this;
  }

 private:
  void RunPull() {
    {
      absl::MutexLock hold(&mutex_);
      wake_again_ = false;  // What woke us is seen by this pull.
    }
    absl::StatusOr<Batch> batch = pull_();
    {
      absl::MutexLock hold(&mutex_);
      if (batch.ok()) {
        for (Response& message : batch->messages) {
          unsent_.push_back(std::move(message));
        }
        wake_again_ |= batch->more;
        is_finished_ = batch->finished;
      } else {
        error_ = batch.status();
        is_finished_ = true;
      }
    }
    Continue();
  }

  // Writes, pulls again, rests or ends; the stream is busy.
  void Continue() {
    const Response* next = nullptr;
    grpc::Status end;
    {
      absl::MutexLock hold(&mutex_);
      if (is_cancelled_) {
        end = grpc::Status::CANCELLED;
        is_over_ = true;
      } else if (!unsent_.empty()) {
        next = &unsent_.front();
      } else if (is_finished_) {
        end = ToGrpcStatus(error_);
        is_over_ = true;
      } else if (std::exchange(wake_again_, false)) {
        pool_.Run([this] { RunPull(); });
        return;
      } else {
        is_busy_ = false;
        return;
      }
    }
    if (next != nullptr) {
      this->StartWrite(next);
    } else {
      this->Finish(end);
    }
  }

  TaskPool& pool_;
  Pull pull_;

  absl::Mutex mutex_;  // Never held while calling out.
  // Pulling or writing; from the beginning, for Wake may come before Start.
  bool is_busy_ ABSL_GUARDED_BY(mutex_) = true;
  bool wake_again_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_over_ ABSL_GUARDED_BY(mutex_) = false;  // Finish was called.
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  std::deque<Response> unsent_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ft
