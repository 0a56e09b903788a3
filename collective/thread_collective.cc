// SPDX-License-Identifier: Apache-2.0

#include "collective/thread_collective.h"

#include <cstring>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "collective/sequence.h"
#include "common/check.h"
#include "common/status.h"

namespace ft {
namespace {

// What a rank shows the others between two meetings.
struct Posted {
  std::span<const std::byte> in;
  uint64_t sequence = 0;
};

// A meeting place: everybody posts, everybody reads, everybody leaves.
class Group {
 public:
  Group(int size, absl::Duration timeout) : timeout_(timeout), posted_(size) {}

  int size() const { return static_cast<int>(posted_.size()); }

  // Returns when all ranks have posted, or at the first error.
  absl::Status Arrive() {
    absl::MutexLock lock(&mutex_);
    if (!failure_.ok()) return failure_;
    return Meet(/*waits_for_failed=*/false);
  }

  // Returns when all ranks have read. Whoever arrived comes here too, so the
  // wait ends without a limit, and nobody frees what another still reads.
  absl::Status Leave() {
    absl::MutexLock lock(&mutex_);
    const absl::Status status = Meet(/*waits_for_failed=*/true);
    return failure_.ok() ? status : failure_;
  }

  void Fail(const absl::Status& why) {
    absl::MutexLock lock(&mutex_);
    if (failure_.ok()) failure_ = why;
  }

  Posted& posted(int rank) { return posted_[rank]; }

 private:
  absl::Status Meet(bool waits_for_failed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const int64_t meeting = meeting_;
    if (++arrived_ == size()) {
      arrived_ = 0;
      ++meeting_;
      return absl::OkStatus();
    }
    const auto over = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return meeting_ != meeting || (!waits_for_failed && !failure_.ok());
    };
    const absl::Duration limit =
        waits_for_failed ? absl::InfiniteDuration() : timeout_;
    if (!mutex_.AwaitWithTimeout(absl::Condition(&over), limit) &&
        failure_.ok()) {
      failure_ = absl::AbortedError(absl::StrCat(
          "a rank did not come within ", absl::FormatDuration(timeout_)));
    }
    return meeting_ != meeting ? absl::OkStatus() : failure_;
  }

  const absl::Duration timeout_;
  // Written by their rank before a meeting, read by others after it.
  std::vector<Posted> posted_;
  absl::Mutex mutex_;
  int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t meeting_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

void Copy(std::span<const std::byte> from, std::byte* to) {
  if (!from.empty() && from.data() != to) {
    std::memcpy(to, from.data(), from.size());
  }
}

class ThreadCollective : public Collective {
 public:
  ThreadCollective(std::shared_ptr<Group> group, int rank)
      : group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  absl::Status AllGather(std::span<std::byte> out,
                         std::span<const std::byte> in) override {
    FT_CHECK(out.size() == in.size() * size());
    sent_.all_gather += static_cast<int64_t>(in.size()) * (size() - 1);
    return Exchange(CollectiveOp::kAllGather, in, [&](int r, auto from) {
      Copy(from, out.data() + r * in.size());
    });
  }

  absl::Status AllToAll(std::span<std::byte> out,
                        std::span<const std::byte> in) override {
    FT_CHECK(out.size() == in.size() && in.size() % size() == 0);
    const size_t block = in.size() / size();
    sent_.all_to_all += static_cast<int64_t>(block) * (size() - 1);
    return Exchange(CollectiveOp::kAllToAll, in, [&](int r, auto from) {
      Copy(from.subspan(rank_ * block, block), out.data() + r * block);
    });
  }

  absl::Status Broadcast(std::span<std::byte> data, int root) override {
    if (rank_ == root) {
      sent_.broadcast += static_cast<int64_t>(data.size()) * (size() - 1);
    }
    return Exchange(CollectiveOp::kBroadcast, data, [&](int r, auto from) {
      if (r == root) Copy(from, data.data());
    });
  }

  absl::Status Barrier() override {
    return Exchange(CollectiveOp::kBarrier, {}, [](int, auto) {});
  }

  void Abort(const absl::Status& why) override {
    FT_CHECK(!why.ok());
    group_->Fail(why);
  }
  uint64_t sequence_hash() const override { return sequence_.value(); }
  const CollectiveBytes& bytes_sent() const override { return sent_; }

 private:
  template <typename Take>
  absl::Status Exchange(CollectiveOp op, std::span<const std::byte> in,
                        const Take& take) {
    sequence_.Add(op, in.size());
    group_->posted(rank_) = {in, sequence_.value()};
    FT_RETURN_IF_ERROR(group_->Arrive());
    for (int r = 0; r < size(); ++r) {
      if (group_->posted(r).sequence != sequence_.value()) {
        group_->Fail(absl::InternalError(absl::StrCat(
            "rank ", r, " made other collective calls than rank ", rank_)));
        continue;
      }
      take(r, group_->posted(r).in);
    }
    // Nobody may change what it posted before all have read it.
    return group_->Leave();
  }

  const std::shared_ptr<Group> group_;
  const int rank_;
  SequenceHash sequence_;
  CollectiveBytes sent_;
};

}  // namespace

std::vector<std::unique_ptr<Collective>> MakeThreadCollectives(
    int size, absl::Duration timeout) {
  const auto group = std::make_shared<Group>(size, timeout);
  std::vector<std::unique_ptr<Collective>> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.push_back(std::make_unique<ThreadCollective>(group, rank));
  }
  return ranks;
}

}  // namespace ft
