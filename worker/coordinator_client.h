// SPDX-License-Identifier: Apache-2.0
//
// The worker's two streams to the coordinator: Connect for control and, on a
// channel of its own, Report for bulk. Both come back by themselves.

#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ft/v1/workers.pb.h"
#include "worker/config.h"

namespace grpc {
class ClientContext;
}  // namespace grpc

namespace ft {

// Thread-safe.
class CoordinatorClient {
 public:
  struct Callbacks {
    // The first message of each stream.
    std::function<v1::Attach()> attach;
    // On the stream's thread, one at a time.
    std::function<void(const v1::ConnectResponse&)> on_message;
    std::function<void(const v1::ReportResponse&)> on_report_ack;
    // Messages of Report that are not acknowledged, oldest first, for each new
    // stream.
    std::function<std::deque<v1::ReportRequest>()> unacknowledged;
  };

  CoordinatorClient(const WorkerConfig& config, std::string token,
                    Callbacks callbacks);
  // Ends both streams.
  ~CoordinatorClient();

  // Sends on the control stream; dropped if there is none (what matters is said
  // again after Attach).
  void Send(v1::ConnectRequest message);

  // Sends on the bulk stream; kept by the caller until acknowledged.
  void Report(v1::ReportRequest message);

  bool is_connected() const;

 private:
  void ControlLoop();
  void ReportLoop();
  // One stream from dial to break; whether the coordinator answered on it.
  bool ControlOnce();
  bool ReportOnce();
  void SendUnacknowledged();
  void SayEnded(const absl::Status& status, bool is_answered);
  void Pause(absl::Duration wait);

  const WorkerConfig& config_;
  const std::string token_;
  const Callbacks callbacks_;

  // How the control stream ended last, and when it was said; its thread's own.
  std::string said_;
  absl::Time said_at_;

  mutable absl::Mutex mutex_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool connected_ ABSL_GUARDED_BY(mutex_) = false;
  // Of the current stream; cleared when it breaks.
  std::deque<v1::ConnectRequest> control_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::ReportRequest> reports_ ABSL_GUARDED_BY(mutex_);
  bool control_broken_ ABSL_GUARDED_BY(mutex_) = true;
  bool report_broken_ ABSL_GUARDED_BY(mutex_) = true;
  grpc::ClientContext* control_context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  grpc::ClientContext* report_context_ ABSL_GUARDED_BY(mutex_) = nullptr;

  std::thread control_thread_;
  std::thread report_thread_;
};

}  // namespace ft
