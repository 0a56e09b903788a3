// SPDX-License-Identifier: Apache-2.0

#include "train/snapshot.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/bytes.h"
#include "common/check.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {
namespace {

constexpr size_t kInfoBytes = 16 << 10;
// An older rank that was killed is gone in a moment.
constexpr absl::Duration kLockTimeout = absl::Seconds(5);

int64_t PayloadBytes(const ShardedOptimizer& optimizer) {
  return static_cast<int64_t>(kInfoBytes) + optimizer.shard_bytes();
}

// A slot is rounded up to pages; the state ends before that.
template <typename Byte>
std::span<Byte> StateOf(std::span<Byte> payload, int64_t bytes) {
  FT_CHECK(std::cmp_greater_equal(payload.size() - kInfoBytes, bytes));
  return payload.subspan(kInfoBytes, bytes);
}

}  // namespace

Snapshotter::Snapshotter(const RankJob& job, std::unique_ptr<SnapshotRing> ring,
                         Link& link)
    : job_(job),
      link_(link),
      ring_(std::move(ring)),
      thread_([this] { SealLoop(); }) {}

Snapshotter::~Snapshotter() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  thread_.join();
}

absl::StatusOr<std::unique_ptr<Snapshotter>> Snapshotter::Open(
    const RankJob& job, const ShardedOptimizer& optimizer, Link& link) {
  const int64_t bytes = SnapshotRing::FileBytes(PayloadBytes(optimizer));
  const auto too_small = [&](absl::string_view why) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "no local snapshots: two of rank ", job.rank, " take ",
        FormatBytes(bytes), ", ", why,
        "; a rank's death costs the steps since the last checkpoint; give the "
        "worker a larger --snapshot_size, or another --snapshot_dir"));
  };
  if (bytes > job.snapshot_bytes) {
    return too_small(absl::StrCat(FormatBytes(job.snapshot_bytes),
                                  " are left at ", DirName(job.snapshot_ring)));
  }
  absl::StatusOr<std::unique_ptr<SnapshotRing>> ring = SnapshotRing::Open(
      job.snapshot_ring, PayloadBytes(optimizer), kLockTimeout);
  if (absl::IsResourceExhausted(ring.status())) {
    return too_small(ring.status().message());
  }
  if (!ring.ok()) return Annotate(ring.status(), "no local snapshots");
  return std::unique_ptr<Snapshotter>(
      new Snapshotter(job, *std::move(ring), link));
}

absl::StatusOr<CheckpointInfo> Snapshotter::Read(int64_t step) const {
  FT_ASSIGN_OR_RETURN(const std::span<const std::byte> payload,
                      ring_->Read(step));
  const std::string where =
      absl::StrCat(job_.snapshot_ring, ": snapshot of step ", step);
  int64_t size = 0;
  if (payload.size() < kInfoBytes) {
    return absl::DataLossError(absl::StrCat(where, " is cut"));
  }
  std::memcpy(&size, payload.data(), sizeof(size));
  if (size < 0 || size > static_cast<int64_t>(kInfoBytes - sizeof(size))) {
    return absl::DataLossError(absl::StrCat(where, " has no info"));
  }
  const auto* const text =
      reinterpret_cast<const char*>(payload.data() + sizeof(size));
  FT_ASSIGN_OR_RETURN(CheckpointInfo info,
                      ParseInfo({text, static_cast<size_t>(size)}), where);
  return info;
}

absl::Status Snapshotter::Restore(int64_t step, ShardedOptimizer& optimizer) {
  FT_ASSIGN_OR_RETURN(const std::span<const std::byte> payload,
                      ring_->Read(step));
  FT_RETURN_IF_ERROR(
      optimizer.RestoreShard(StateOf(payload, optimizer.shard_bytes())));
  optimizer.set_steps(step);
  ring_->KeepOnly(step);
  taken_step_ = step;
  sealed_step_ = step;
  return absl::OkStatus();
}

void Snapshotter::Clear() { ring_->KeepOnly(/*step=*/-1); }

void Snapshotter::Take(const CheckpointInfo& info,
                       const ShardedOptimizer& optimizer) {
  FT_CHECK(sealed_step() == taken_step_);
  const std::span<std::byte> payload = ring_->Begin(taken_step_);
  const std::string text = SerializeInfo(info);
  const auto size = static_cast<int64_t>(text.size());
  FT_CHECK(text.size() <= kInfoBytes - sizeof(size));
  std::memcpy(payload.data(), &size, sizeof(size));
  std::memcpy(payload.data() + sizeof(size), text.data(), text.size());
  optimizer.CopyShard(StateOf(payload, optimizer.shard_bytes()));
  taken_step_ = info.step;
  absl::MutexLock lock(&mutex_);
  to_seal_ = info.step;
}

void Snapshotter::SealLoop() {
  const auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closing_ || to_seal_ != 0;
  };
  while (true) {
    int64_t step = 0;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&wake));
      if (to_seal_ == 0) return;
      step = std::exchange(to_seal_, 0);
    }
    const SnapshotSeal seal = ring_->Seal({.epoch = job_.epoch,
                                           .step = step,
                                           .rank = job_.rank,
                                           .ranks = job_.world});
    sealed_step_ = step;
    v1::SnapshotSealed notice;
    notice.set_step(step);
    notice.set_bytes(seal.bytes);
    notice.set_sha256(seal.sha256);
    link_.SnapshotSealed(notice);
  }
}

}  // namespace ft
