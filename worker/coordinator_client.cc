// SPDX-License-Identifier: Apache-2.0

#include "worker/coordinator_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "artifact/transfer.h"
#include "common/backoff.h"
#include "common/digest.h"
#include "common/grpc_status.h"
#include "common/log.h"
#include "ft/v1/workers.grpc.pb.h"

namespace ft {
namespace {

// Between two reports of the same failure.
constexpr absl::Duration kSayAgain = absl::Minutes(1);

void Authorize(grpc::ClientContext& context, const std::string& token) {
  context.AddMetadata("authorization", absl::StrCat("Bearer ", token));
}

uint64_t Seed() {
  uint64_t seed;
  std::memcpy(&seed, RandomBytes(sizeof(seed)).data(), sizeof(seed));
  return seed;
}

}  // namespace

CoordinatorClient::CoordinatorClient(const WorkerConfig& config,
                                     std::string token, Callbacks callbacks)
    : config_(config),
      token_(std::move(token)),
      callbacks_(std::move(callbacks)),
      control_thread_([this] { ControlLoop(); }),
      report_thread_([this] { ReportLoop(); }) {}

CoordinatorClient::~CoordinatorClient() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
    if (control_context_ != nullptr) control_context_->TryCancel();
    if (report_context_ != nullptr) report_context_->TryCancel();
  }
  control_thread_.join();
  report_thread_.join();
}

void CoordinatorClient::Send(v1::ConnectRequest message) {
  absl::MutexLock lock(&mutex_);
  if (!control_broken_) control_.push_back(std::move(message));
}

void CoordinatorClient::Report(v1::ReportRequest message) {
  absl::MutexLock lock(&mutex_);
  if (!report_broken_) reports_.push_back(std::move(message));
}

bool CoordinatorClient::is_connected() const {
  absl::MutexLock lock(&mutex_);
  return connected_;
}

void CoordinatorClient::Pause(absl::Duration wait) {
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&closing_), wait);
}

void CoordinatorClient::ControlLoop() {
  Backoff backoff(absl::Milliseconds(50), absl::Seconds(2), Seed());
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (closing_) return;
    }
    // A stream that was answered was no failure of the address.
    if (ControlOnce()) backoff.Reset();
    Pause(backoff.Next());
  }
}

bool CoordinatorClient::ControlOnce() {
  const auto channel = MakeChannel(config_.coordinator);
  const auto stub = v1::WorkerService::NewStub(channel);
  grpc::ClientContext context;
  Authorize(context, token_);
  {
    absl::MutexLock lock(&mutex_);
    if (closing_) return false;
    control_context_ = &context;
    // From here on messages wait for the writer: what changes after Attach was
    // made is not lost.
    control_.clear();
    control_broken_ = false;
  }
  const auto stream = stub->Connect(&context);
  v1::ConnectRequest first;
  *first.mutable_attach() = callbacks_.attach();
  if (!stream->Write(first)) {
    absl::MutexLock lock(&mutex_);
    control_broken_ = true;
  }
  std::thread writer([&] {
    const auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return control_broken_ || closing_ || !control_.empty();
    };
    while (true) {
      v1::ConnectRequest message;
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(&wake));
        if (control_broken_ || (closing_ && control_.empty())) return;
        message = std::move(control_.front());
        control_.pop_front();
      }
      if (!stream->Write(message)) return;
    }
  });
  bool is_answered = false;
  v1::ConnectResponse response;
  while (stream->Read(&response)) {
    if (response.has_attached()) {
      is_answered = true;
      absl::MutexLock lock(&mutex_);
      connected_ = true;
    }
    callbacks_.on_message(response);
  }
  {
    absl::MutexLock lock(&mutex_);
    control_broken_ = true;
    connected_ = false;
    control_context_ = nullptr;
  }
  // The call is over, so its status is the coordinator's own: to cancel it now
  // would hide why, a wrong token for one.
  writer.join();
  SayEnded(FromGrpcStatus(stream->Finish()), is_answered);
  return is_answered;
}

void CoordinatorClient::SayEnded(const absl::Status& status, bool is_answered) {
  // Tried again many times a minute: the same again is no news.
  const absl::Time now = absl::Now();
  const std::string text = status.ToString();
  if (!is_answered && text == said_ && now - said_at_ < kSayAgain) return;
  said_ = text;
  said_at_ = now;
  Log(LogSeverity::kWarn, "worker", "control stream ended",
      {{"coordinator", config_.coordinator},
       {"status", text},
       {"next", "reconnect"}});
}

void CoordinatorClient::ReportLoop() {
  Backoff backoff(absl::Milliseconds(100), absl::Seconds(2), Seed());
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (closing_) return;
    }
    if (ReportOnce()) backoff.Reset();
    Pause(backoff.Next());
  }
}

void CoordinatorClient::SendUnacknowledged() {
  // Not under our lock: the daemon holds its own when it calls us.
  std::deque<v1::ReportRequest> reports = callbacks_.unacknowledged();
  std::map<uint64_t, int64_t> last;
  for (const v1::ReportRequest& report : reports) {
    last[report.epoch()] = std::max(last[report.epoch()], report.seq());
  }
  absl::MutexLock lock(&mutex_);
  for (v1::ReportRequest& report : reports_) {
    const auto known = last.find(report.epoch());
    if (known != last.end() && report.seq() <= known->second) continue;
    reports.push_back(std::move(report));
  }
  reports_ = std::move(reports);
}

bool CoordinatorClient::ReportOnce() {
  const auto channel = MakeChannel(config_.coordinator);
  const auto stub = v1::WorkerService::NewStub(channel);
  grpc::ClientContext context;
  Authorize(context, token_);
  {
    absl::MutexLock lock(&mutex_);
    if (closing_) return false;
    report_context_ = &context;
    reports_.clear();
    report_broken_ = false;
  }
  SendUnacknowledged();
  const auto stream = stub->Report(&context);
  bool is_answered = false;
  std::thread reader([&] {
    v1::ReportResponse response;
    while (stream->Read(&response)) {
      is_answered = true;
      callbacks_.on_report_ack(response);
    }
    absl::MutexLock lock(&mutex_);
    report_broken_ = true;
  });
  const auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return report_broken_ || closing_ || !reports_.empty();
  };
  while (true) {
    v1::ReportRequest message;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&wake));
      if (report_broken_ || closing_) break;
      message = std::move(reports_.front());
      reports_.pop_front();
    }
    if (!stream->Write(message)) break;
  }
  {
    absl::MutexLock lock(&mutex_);
    report_broken_ = true;
    report_context_ = nullptr;
  }
  context.TryCancel();
  reader.join();
  stream->Finish();
  return is_answered;
}

}  // namespace ft
