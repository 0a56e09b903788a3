// SPDX-License-Identifier: Apache-2.0

#include "train/daemon_link.h"

#include <unistd.h>

#include <utility>

#include "common/status.h"

namespace ft {

DaemonLink::DaemonLink(int fd, void (*daemon_gone)())
    : fd_(fd),
      daemon_gone_(daemon_gone),
      reader_([this] { ReadLoop(); }),
      writer_([this] { WriteLoop(); }) {}

DaemonLink::~DaemonLink() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  writer_.join();
  // The reader may wait for a message for ever; the process is about to end.
  reader_.detach();
}

absl::StatusOr<v1::RankStart> DaemonLink::ReceiveStart(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto started = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return start_.has_value();
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&started), timeout)) {
    return absl::DeadlineExceededError("the daemon sent no start order");
  }
  return *start_;
}

UniqueFd DaemonLink::TakeSharedMemory() {
  absl::MutexLock lock(&mutex_);
  return std::move(shared_memory_);
}

void DaemonLink::Ready(const v1::RankReadyNotice& notice) {
  v1::FromRank message;
  *message.mutable_ready() = notice;
  Send(std::move(message));
}

absl::Status DaemonLink::WaitForBegin(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto decided = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return begun_ || requests_.stop || requests_.yield;
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&decided), timeout)) {
    return absl::DeadlineExceededError(absl::StrCat(
        "the gang was not ready within ", absl::FormatDuration(timeout)));
  }
  if (requests_.stop) return absl::CancelledError("stopped before step 1");
  return absl::OkStatus();
}

void DaemonLink::Step(const v1::StepMetrics& step) {
  v1::FromRank message;
  *message.mutable_step() = step;
  Send(std::move(message));
}

void DaemonLink::SnapshotSealed(const v1::SnapshotSealed& sealed) {
  v1::FromRank message;
  *message.mutable_snapshot_sealed() = sealed;
  Send(std::move(message));
}

void DaemonLink::Checkpointed(const v1::CheckpointFiles& files) {
  v1::FromRank message;
  *message.mutable_checkpoint_files() = files;
  Send(std::move(message));
}

void DaemonLink::Exported(const v1::ExportFiles& files) {
  v1::FromRank message;
  *message.mutable_export_files() = files;
  Send(std::move(message));
}

void DaemonLink::Tell(const v1::Event& event) {
  v1::FromRank message;
  *message.mutable_event() = event;
  Send(std::move(message));
}

void DaemonLink::Exit(const v1::RankExit& exit) {
  v1::FromRank message;
  *message.mutable_exit() = exit;
  Send(std::move(message));
  absl::MutexLock lock(&mutex_);
  const auto sent = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return unsent_.empty() && !writing_;
  };
  mutex_.Await(absl::Condition(&sent));
}

RankRequests DaemonLink::TakeRequests() {
  absl::MutexLock lock(&mutex_);
  const RankRequests taken = requests_;
  requests_.checkpoint = false;
  return taken;
}

absl::Status DaemonLink::SetKey(absl::string_view key,
                                absl::string_view value) {
  v1::FromRank message;
  message.mutable_rendezvous_set()->set_key(std::string(key));
  message.mutable_rendezvous_set()->set_value(std::string(value));
  Send(std::move(message));
  return absl::OkStatus();
}

absl::StatusOr<std::string> DaemonLink::GetKey(absl::string_view key,
                                               absl::Duration timeout) {
  v1::FromRank message;
  message.mutable_rendezvous_get()->set_key(std::string(key));
  Send(std::move(message));

  absl::MutexLock lock(&mutex_);
  const std::string wanted(key);
  const auto answered = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return keys_.contains(wanted) || requests_.stop;
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&answered), timeout)) {
    return absl::DeadlineExceededError(
        absl::StrCat("no rank set the key \"", key, "\" within ",
                     absl::FormatDuration(timeout)));
  }
  if (requests_.stop) return absl::CancelledError("stopped while meeting");
  return keys_.at(wanted);
}

void DaemonLink::ReadLoop() {
  FrameAndFdReader frames(fd_);
  while (true) {
    const absl::StatusOr<std::string> bytes = frames.Read();
    v1::ToRank message;
    if (!bytes.ok() || !message.ParseFromString(*bytes)) {
      daemon_gone_();
      return;
    }
    Take(std::move(message), frames);
  }
}

void DaemonLink::Take(v1::ToRank message, FrameAndFdReader& frames) {
  absl::MutexLock lock(&mutex_);
  switch (message.message_case()) {
    case v1::ToRank::kStart:
      start_ = std::move(*message.mutable_start());
      if (start_->has_shared_memory()) shared_memory_ = frames.TakeDescriptor();
      break;
    case v1::ToRank::kRendezvousReply:
      keys_[message.rendezvous_reply().key()] =
          message.rendezvous_reply().value();
      break;
    case v1::ToRank::kBegin:
      begun_ = true;
      break;
    case v1::ToRank::kCheckpoint:
      requests_.checkpoint = true;
      break;
    case v1::ToRank::kYield:
      requests_.yield = true;
      break;
    case v1::ToRank::kStop:
      requests_.stop = true;
      break;
    case v1::ToRank::MESSAGE_NOT_SET:
      break;  // From a newer daemon.
  }
}

void DaemonLink::Send(v1::FromRank message) {
  absl::MutexLock lock(&mutex_);
  unsent_.push_back(std::move(message));
}

void DaemonLink::WriteLoop() {
  FrameWriter frames(fd_);
  const auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closing_ || !unsent_.empty();
  };
  while (true) {
    std::string bytes;
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      mutex_.Await(absl::Condition(&wake));
      if (unsent_.empty()) return;
      bytes = unsent_.front().SerializeAsString();
      unsent_.pop_front();
      writing_ = true;
    }
    if (!frames.Write(bytes).ok()) {
      daemon_gone_();
      return;
    }
  }
}

}  // namespace ft
