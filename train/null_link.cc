// SPDX-License-Identifier: Apache-2.0

#include "train/null_link.h"

#include <utility>

#include "absl/strings/str_format.h"

namespace ft {

NullLink::NullLink(NullLinkOptions options) : options_(std::move(options)) {}

void NullLink::Ready(const v1::RankReadyNotice& notice) {
  if (options_.progress == nullptr) return;
  absl::FPrintF(options_.progress,
                "ready: steps %d to %d, optimizer state %d bytes\n",
                notice.completed_steps() + 1, notice.total_steps(),
                notice.optimizer_state_bytes());
}

absl::Status NullLink::WaitForBegin(absl::Duration) { return absl::OkStatus(); }

void NullLink::Step(const v1::StepMetrics& step) {
  if (options_.progress == nullptr) return;
  if (step.has_eval_loss()) {
    absl::FPrintF(options_.progress, "step %d/%d  eval_loss %.4f\n",
                  step.step(), step.total_steps(), step.eval_loss());
    return;
  }
  absl::FPrintF(options_.progress,
                "step %d/%d  loss %.4f  grad_norm %.3f  lr %.2e  %.0f tok/s\n",
                step.step(), step.total_steps(), step.loss(), step.grad_norm(),
                step.learning_rate(),
                step.seconds() > 0 ? step.tokens() / step.seconds() : 0.0);
}

void NullLink::SnapshotSealed(const v1::SnapshotSealed&) {}

void NullLink::Checkpointed(const v1::CheckpointFiles& files) {
  if (options_.progress == nullptr) return;
  absl::FPrintF(options_.progress, "checkpoint of step %d in %s\n",
                files.step(), files.dir());
}

void NullLink::Exported(const v1::ExportFiles& files) {
  if (options_.progress == nullptr) return;
  absl::FPrintF(options_.progress, "result in %s\n", files.dir());
}

void NullLink::Tell(const v1::Event& event) {
  if (options_.progress == nullptr) return;
  absl::FPrintF(options_.progress, "%s\n", event.message());
}

void NullLink::Exit(const v1::RankExit&) {}

RankRequests NullLink::TakeRequests() {
  RankRequests requests;
  requests.yield =
      options_.interrupted != nullptr && options_.interrupted->load();
  return requests;
}

absl::Status NullLink::SetKey(absl::string_view key, absl::string_view value) {
  if (options_.rendezvous != nullptr) {
    return options_.rendezvous->Set(key, value);
  }
  return absl::FailedPreconditionError("a rank alone has nobody to tell a key");
}

absl::StatusOr<std::string> NullLink::GetKey(absl::string_view key,
                                             absl::Duration timeout) {
  if (options_.rendezvous != nullptr) {
    return options_.rendezvous->Get(key, timeout);
  }
  return absl::FailedPreconditionError("a rank alone has nobody to ask a key");
}

}  // namespace ft
