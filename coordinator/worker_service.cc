// SPDX-License-Identifier: Apache-2.0

#include <deque>
#include <utility>

#include "coordinator/request_checks.h"
#include "coordinator/service_util.h"
#include "coordinator/services.h"
#include "ft/v1/workers.grpc.pb.h"

namespace ft {
namespace {

// A worker that does not read is cut off before it costs more.
constexpr size_t kMaxUnsent = 4096;

// One worker's stream. The link outlives the reactor, for orders may still be
// on their way when the stream goes.
class ConnectStream final
    : public grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse> {
 public:
  explicit ConnectStream(JobBook& book)
      : book_(book), link_(std::make_shared<Link>(*this)) {
    session_ = book_.OpenSession(link_);
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      link_->Close(absl::OkStatus());
      return;
    }
    const absl::Status status = std::exchange(is_attached_, true)
                                    ? CheckLater(request_)
                                    : CheckAttach(request_);
    if (!status.ok()) {
      link_->Close(status);
      return;
    }
    book_.Receive(session_, std::move(request_));
    request_ = {};
    StartRead(&request_);
  }

  void OnWriteDone(bool ok) override { link_->WriteDone(ok); }
  void OnCancel() override { link_->Close(absl::CancelledError()); }

  void OnDone() override {
    link_->Forget();
    book_.CloseSession(session_);
    delete this;
  }

 private:
  class Link final : public WorkerLink {
   public:
    explicit Link(ConnectStream& stream) : stream_(&stream) {}

    void Send(v1::ConnectResponse message) override {
      absl::MutexLock hold(&mutex_);
      if (stream_ == nullptr || is_closing_) return;
      if (unsent_.size() >= kMaxUnsent) {
        CloseLocked(absl::ResourceExhaustedError(
            "the worker does not read what it is told"));
        return;
      }
      unsent_.push_back(std::move(message));
      if (unsent_.size() == 1) stream_->StartWrite(&unsent_.front());
    }

    void Close(const absl::Status& status) override {
      absl::MutexLock hold(&mutex_);
      CloseLocked(status);
    }

    void WriteDone(bool ok) {
      absl::MutexLock hold(&mutex_);
      unsent_.pop_front();
      if (stream_ == nullptr) return;
      if (!ok) unsent_.clear();
      if (!unsent_.empty()) {
        stream_->StartWrite(&unsent_.front());
      } else if (is_closing_) {
        FinishOnce();
      }
    }

    void Forget() {
      absl::MutexLock hold(&mutex_);
      stream_ = nullptr;
    }

   private:
    void CloseLocked(const absl::Status& status)
        ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (stream_ == nullptr || std::exchange(is_closing_, true)) return;
      end_ = status;
      if (unsent_.empty()) {
        FinishOnce();
      } else {
        unsent_.resize(1);  // Being written; the rest is of no more use.
      }
    }

    void FinishOnce() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (!std::exchange(is_finished_, true)) {
        stream_->Finish(ToGrpcStatus(end_));
      }
    }

    // Held while the reactor's operations are started; none of them calls
    // back on this thread.
    absl::Mutex mutex_;
    ConnectStream* stream_ ABSL_GUARDED_BY(mutex_);
    bool is_closing_ ABSL_GUARDED_BY(mutex_) = false;
    bool is_finished_ ABSL_GUARDED_BY(mutex_) = false;
    absl::Status end_ ABSL_GUARDED_BY(mutex_);
    std::deque<v1::ConnectResponse> unsent_ ABSL_GUARDED_BY(mutex_);
  };

  JobBook& book_;
  const std::shared_ptr<Link> link_;
  uint64_t session_ = 0;
  bool is_attached_ = false;
  v1::ConnectRequest request_;
};

// One worker's bulk: a message is stored, acknowledged, and then the next read.
class ReportStream final
    : public grpc::ServerBidiReactor<v1::ReportRequest, v1::ReportResponse> {
 public:
  explicit ReportStream(JobBook& book) : book_(book) { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::OK);
      return;
    }
    book_.Report(std::move(request_),
                 [this](absl::StatusOr<v1::ReportResponse> stored) {
                   if (!stored.ok()) {
                     Finish(ToGrpcStatus(stored.status()));
                     return;
                   }
                   response_ = *std::move(stored);
                   StartWrite(&response_);
                 });
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::CANCELLED);
      return;
    }
    request_ = {};
    StartRead(&request_);
  }

  void OnDone() override { delete this; }

 private:
  JobBook& book_;
  v1::ReportRequest request_;
  v1::ReportResponse response_;
};

// Translates gRPC to JobBook and nothing else: no decision is taken here.
class WorkerServiceImpl final : public v1::WorkerService::CallbackService {
 public:
  explicit WorkerServiceImpl(JobBook& book) : book_(book) {}

  grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* Connect(
      grpc::CallbackServerContext*) override {
    return new ConnectStream(book_);
  }

  grpc::ServerBidiReactor<v1::ReportRequest, v1::ReportResponse>* Report(
      grpc::CallbackServerContext*) override {
    return new ReportStream(book_);
  }

 private:
  JobBook& book_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeWorkerService(JobBook& book) {
  return std::make_shared<WorkerServiceImpl>(book);
}

}  // namespace ft
