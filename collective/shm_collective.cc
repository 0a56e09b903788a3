// SPDX-License-Identifier: Apache-2.0

#include "collective/shm_collective.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "collective/frame.h"
#include "collective/sequence.h"
#include "collective/socket.h"
#include "common/check.h"
#include "common/digest.h"
#include "common/shared_memory.h"
#include "common/status.h"

namespace ft {
namespace {

using internal::Deadline;
using internal::FrameHeader;

constexpr size_t kPage = 4096;
constexpr size_t kProofBytes = 32;
// What a half must hold for each rank at least; also the grain of its parts.
constexpr size_t kLeastPart = 64;
// Looks at a word before the futex: an exchange of small pieces between ranks
// that run takes less.
constexpr int kSpins = 400;
// Between looks at whether the rank we wait for still lives, and whether
// somebody gave up: also the most that a lost wake-up can cost.
constexpr absl::Duration kSlice = absl::Milliseconds(10);

// Zero bytes are a valid beginning of both structs, so that nobody has to come
// first.
struct AbortPage {
  static constexpr uint32_t kNone = 0, kBeingWritten = 1, kWritten = 2;
  std::atomic<uint32_t> state;
  int32_t rank;
  char why[internal::kMaxAbortBytes];
};
static_assert(sizeof(AbortPage) <= kPage);

struct alignas(256) RankBlock {
  std::atomic<uint32_t> joined;   // 1: the proof is there.
  std::atomic<uint32_t> posted;   // Pieces so far; wraps.
  std::atomic<uint32_t> waiters;  // Ranks that sleep on one of the above.
  unsigned char proof[kProofBytes];
  FrameHeader headers[2];  // Of the last even and the last odd piece.
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);

void Copy(const std::byte* from, std::byte* to, size_t size) {
  if (size > 0 && from != to) std::memcpy(to, from, size);
}

void FutexWait(std::atomic<uint32_t>& word, uint32_t value,
               absl::Duration limit) {
  const timespec time = absl::ToTimespec(limit);
  // Any return is a reason to look again.
  syscall(SYS_futex, &word, FUTEX_WAIT, value, &time, nullptr, 0);
}

void FutexWake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Locks of open file descriptions: they fall when the last descriptor is
// closed, and so with the process, whatever ends it.
flock ByteLock(int rank, short type) {
  flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = rank;
  lock.l_len = 1;
  return lock;
}

// The memory as one rank sees it.
class Region {
 public:
  static absl::StatusOr<Region> Map(int fd, int ranks);
  ~Region() {
    if (base_ != nullptr) munmap(base_, bytes_);
  }
  Region(Region&& other) noexcept
      : fd_(std::move(other.fd_)),
        base_(std::exchange(other.base_, nullptr)),
        bytes_(other.bytes_),
        slots_(other.slots_),
        half_(other.half_) {}
  Region& operator=(Region&&) = delete;

  AbortPage& abort() const { return *std::launder(As<AbortPage>(0)); }
  RankBlock& block(int rank) const {
    return *std::launder(As<RankBlock>(kPage + rank * sizeof(RankBlock)));
  }
  // Of `rank`'s slot, for piece number `piece`.
  std::byte* half(int rank, uint32_t piece) const {
    return base_ + slots_ + (2 * rank + (piece & 1)) * half_;
  }
  size_t half_bytes() const { return half_; }

  // Says that `rank` is this process, until it ends.
  absl::Status Lock(int rank) {
    flock lock = ByteLock(rank, F_WRLCK);
    if (fcntl(fd_.get(), F_OFD_SETLK, &lock) == 0) return absl::OkStatus();
    return absl::AlreadyExistsError(
        absl::StrCat("rank ", rank, " is there already"));
  }
  // Whether the process of another rank that has joined still lives.
  bool IsAlive(int rank) const {
    flock lock = ByteLock(rank, F_WRLCK);
    return fcntl(fd_.get(), F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
  }

 private:
  Region(UniqueFd fd, std::byte* base, size_t bytes, int ranks)
      : fd_(std::move(fd)), base_(base), bytes_(bytes), slots_(Slots(ranks)) {
    half_ = (bytes - slots_) / ranks / 2 / kPage * kPage;
  }
  template <typename T>
  T* As(size_t offset) const {
    return reinterpret_cast<T*>(base_ + offset);
  }
  static size_t Slots(int ranks) {
    return (kPage + ranks * sizeof(RankBlock) + kPage - 1) / kPage * kPage;
  }

  UniqueFd fd_;
  std::byte* base_;
  size_t bytes_;
  size_t slots_;
  size_t half_ = 0;
};

absl::StatusOr<Region> Region::Map(int fd, int ranks) {
  if (!IsSizeSealed(fd)) {
    return absl::InvalidArgumentError("the shared memory is not sealed");
  }
  // An open file description of its own, so that the lock is this rank's.
  UniqueFd own(
      open(absl::StrCat("/proc/self/fd/", fd).c_str(), O_RDWR | O_CLOEXEC));
  if (!own.is_open()) return ErrnoStatus(errno, "open shared memory");
  struct stat info = {};
  if (fstat(own.get(), &info) != 0) return ErrnoStatus(errno, "fstat");
  const auto bytes = static_cast<size_t>(info.st_size);
  const auto count = static_cast<size_t>(ranks);
  const size_t least_half =
      (std::max(kPage, count * kLeastPart) + kPage - 1) / kPage * kPage;
  if (bytes < Slots(ranks) + 2 * count * least_half) {
    return absl::InvalidArgumentError(absl::StrCat(
        bytes, " bytes of shared memory are too few for ", ranks, " ranks"));
  }
  void* const base =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, own.get(), 0);
  if (base == MAP_FAILED) return ErrnoStatus(errno, "map shared memory");
  return Region(std::move(own), static_cast<std::byte*>(base), bytes, ranks);
}

// What rank `rank` shows the others: it knows the secret, and is of this
// attempt.
std::string Proof(const ShmOptions& options, int rank) {
  return HmacSha256(options.secret,
                    absl::StrCat("shm/", options.job_id, "/", options.epoch,
                                 "/", options.size, "/", rank));
}

class ShmCollective : public Collective {
 public:
  ShmCollective(ShmOptions options, Region region)
      : options_(std::move(options)),
        job_(internal::JobTag(options_.job_id)),
        region_(std::move(region)) {}

  // Says that this rank is there, and waits for the others.
  absl::Status Join();

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }

  absl::Status AllGather(std::span<std::byte> out,
                         std::span<const std::byte> in) override {
    FT_CHECK(out.size() == in.size() * size());
    sent_.all_gather += static_cast<int64_t>(in.size()) * (size() - 1);
    Copy(in.data(), out.data() + rank() * in.size(), in.size());
    return Exchange(
        {CollectiveOp::kAllGather, in.size(), in.size(), region_.half_bytes()},
        [&](std::byte* to, size_t at, size_t n) {
          Copy(in.data() + at, to, n);
        },
        [&](int r, const std::byte* from, size_t at, size_t n) {
          Copy(from, out.data() + r * in.size() + at, n);
        });
  }

  absl::Status AllToAll(std::span<std::byte> out,
                        std::span<const std::byte> in) override {
    FT_CHECK(out.size() == in.size() && in.size() % size() == 0);
    const size_t block = in.size() / size();
    sent_.all_to_all += static_cast<int64_t>(block) * (size() - 1);
    Copy(in.data() + rank() * block, out.data() + rank() * block, block);
    // A half holds a part of every block.
    const size_t part = region_.half_bytes() / size() / kLeastPart * kLeastPart;
    return Exchange(
        {CollectiveOp::kAllToAll, in.size(), block, part},
        [&](std::byte* to, size_t at, size_t n) {
          for (int r = 0; r < size(); ++r) {
            if (r != rank()) Copy(in.data() + r * block + at, to + r * part, n);
          }
        },
        [&](int r, const std::byte* from, size_t at, size_t n) {
          Copy(from + rank() * part, out.data() + r * block + at, n);
        });
  }

  absl::Status Broadcast(std::span<std::byte> data, int root) override {
    if (rank() == root) {
      sent_.broadcast += static_cast<int64_t>(data.size()) * (size() - 1);
    }
    return Exchange(
        {CollectiveOp::kBroadcast, data.size(), data.size(),
         region_.half_bytes()},
        [&](std::byte* to, size_t at, size_t n) {
          if (rank() == root) Copy(data.data() + at, to, n);
        },
        [&](int r, const std::byte* from, size_t at, size_t n) {
          if (r == root) Copy(from, data.data() + at, n);
        });
  }

  absl::Status Barrier() override {
    return Exchange(
        {CollectiveOp::kBarrier, 0, 0, region_.half_bytes()},
        [](std::byte*, size_t, size_t) {},
        [](int, const std::byte*, size_t, size_t) {});
  }

  void Abort(const absl::Status& why) override {
    FT_CHECK(!why.ok());
    Fail(why).IgnoreError();  // The next call returns it.
  }

  uint64_t sequence_hash() const override { return sequence_.value(); }
  const CollectiveBytes& bytes_sent() const override { return sent_; }

 private:
  struct Call {
    CollectiveOp op;
    size_t call_size;  // Must be equal on all ranks.
    size_t bytes;      // To be moved in pieces of at most `piece`.
    size_t piece;
  };

  // `put(half, at, n)` writes bytes [at, at + n) of what this rank has for the
  // others; `take(r, half, at, n)` reads the same of rank r.
  template <typename Put, typename Take>
  absl::Status Exchange(const Call& call, const Put& put, const Take& take);
  absl::Status WaitForPiece(int r, uint32_t piece);
  // Until `is_there` says so of the word, for at most `timeout`.
  template <typename IsThere>
  absl::Status Await(int r, std::atomic<uint32_t> RankBlock::* word,
                     const IsThere& is_there, absl::Duration timeout);
  void Show(std::atomic<uint32_t> RankBlock::* word, uint32_t value);
  absl::Status CheckAbort() const;
  absl::Status Fail(const absl::Status& why);
  FrameHeader Header(const Call& call) const {
    return internal::MakeFrame(call.op, job_, options_.epoch, sequence_.value(),
                               call.call_size);
  }

  const ShmOptions options_;
  const uint64_t job_;
  Region region_;
  SequenceHash sequence_;
  CollectiveBytes sent_;
  uint32_t piece_ = 0;

  mutable absl::Mutex mutex_;  // Never held while waiting.
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

void ShmCollective::Show(std::atomic<uint32_t> RankBlock::* word,
                         uint32_t value) {
  RankBlock& mine = region_.block(rank());
  (mine.*word).store(value, std::memory_order_seq_cst);
  // The order of this store and this load, against that of Await, is why no
  // sleeper is forgotten.
  if (mine.waiters.load(std::memory_order_seq_cst) != 0) FutexWake(mine.*word);
}

template <typename IsThere>
absl::Status ShmCollective::Await(int r,
                                  std::atomic<uint32_t> RankBlock::* word,
                                  const IsThere& is_there,
                                  absl::Duration timeout) {
  RankBlock& peer = region_.block(r);
  std::atomic<uint32_t>& value = peer.*word;
  for (int i = 0; i < kSpins; ++i) {
    if (is_there(value.load(std::memory_order_acquire))) {
      return absl::OkStatus();
    }
    Pause();
  }
  const Deadline deadline = internal::After(timeout);
  while (true) {
    const bool has_joined = peer.joined.load(std::memory_order_acquire) != 0;
    // Looked at before the word: what a rank posted before it died counts.
    const bool is_gone = has_joined && !region_.IsAlive(r);
    peer.waiters.fetch_add(1, std::memory_order_seq_cst);
    const uint32_t seen = value.load(std::memory_order_seq_cst);
    const bool found = is_there(seen);
    const absl::Status aborted = CheckAbort();
    const bool is_late = internal::IsOver(deadline);
    if (!found && !is_gone && aborted.ok() && !is_late) {
      FutexWait(value, seen, kSlice);
    }
    peer.waiters.fetch_sub(1, std::memory_order_seq_cst);
    if (found) return absl::OkStatus();
    FT_RETURN_IF_ERROR(aborted);
    if (is_gone) {
      return absl::AbortedError(absl::StrCat("rank ", r, " is gone"));
    }
    if (is_late) {
      return absl::DeadlineExceededError(absl::StrCat(
          "rank ", r, " was silent for ", absl::FormatDuration(timeout)));
    }
  }
}

absl::Status ShmCollective::WaitForPiece(int r, uint32_t piece) {
  const absl::Status status = Await(
      r, &RankBlock::posted,
      [&](uint32_t posted) {
        return static_cast<int32_t>(posted - piece) >= 0;
      },
      options_.idle_timeout);
  // To the caller a rank that hangs is as dead as one that is gone.
  return absl::IsDeadlineExceeded(status) ? absl::AbortedError(status.message())
                                          : status;
}

template <typename Put, typename Take>
absl::Status ShmCollective::Exchange(const Call& call, const Put& put,
                                     const Take& take) {
  FT_RETURN_IF_ERROR(CheckAbort());
  sequence_.Add(call.op, call.call_size);
  const FrameHeader header = Header(call);
  size_t at = 0;
  do {
    const size_t n = std::min(call.piece, call.bytes - at);
    const uint32_t piece = ++piece_;
    put(region_.half(rank(), piece), at, n);
    region_.block(rank()).headers[piece & 1] = header;
    Show(&RankBlock::posted, piece);
    for (int i = 1; i < size(); ++i) {
      const int r = (rank() + i) % size();
      if (absl::Status status = WaitForPiece(r, piece); !status.ok()) {
        return Fail(status);
      }
      if (const absl::Status status =
              internal::CheckFrame(region_.block(r).headers[piece & 1], header);
          !status.ok()) {
        return Fail(Annotate(status, absl::StrCat("rank ", r)));
      }
      take(r, region_.half(r, piece), at, n);
    }
    at += n;
  } while (at < call.bytes);
  return absl::OkStatus();
}

// What ended this rank's calls, or another rank's abort.
absl::Status ShmCollective::CheckAbort() const {
  {
    absl::MutexLock lock(&mutex_);
    if (!failure_.ok()) return failure_;
  }
  const AbortPage& page = region_.abort();
  if (page.state.load(std::memory_order_acquire) != AbortPage::kWritten) {
    return absl::OkStatus();
  }
  const size_t size = strnlen(page.why, sizeof(page.why));
  return absl::AbortedError(absl::StrCat(
      "rank ", page.rank, ": it gave up: ", absl::string_view(page.why, size)));
}

// Ends this rank's calls, tells the others, and returns this rank's first
// error.
absl::Status ShmCollective::Fail(const absl::Status& why) {
  absl::Status first;
  {
    absl::MutexLock lock(&mutex_);
    if (failure_.ok()) failure_ = why;
    first = failure_;
  }
  AbortPage& page = region_.abort();
  uint32_t none = AbortPage::kNone;
  if (page.state.compare_exchange_strong(none, AbortPage::kBeingWritten)) {
    page.rank = rank();
    const size_t size = std::min(first.message().size(), sizeof(page.why));
    std::memcpy(page.why, first.message().data(), size);
    page.state.store(AbortPage::kWritten, std::memory_order_release);
  }
  for (int r = 0; r < size(); ++r) {
    FutexWake(region_.block(r).posted);
    FutexWake(region_.block(r).joined);
  }
  return first;
}

absl::Status ShmCollective::Join() {
  FT_RETURN_IF_ERROR(region_.Lock(rank()));
  RankBlock& mine = region_.block(rank());
  if (mine.joined.load() != 0) {
    return absl::FailedPreconditionError("the shared memory was used before");
  }
  std::memcpy(mine.proof, Proof(options_, rank()).data(), kProofBytes);
  Show(&RankBlock::joined, 1);
  const Deadline deadline = internal::After(options_.connect_timeout);
  for (int r = 0; r < size(); ++r) {
    if (r == rank()) continue;
    const absl::Status came = Await(
        r, &RankBlock::joined, [](uint32_t joined) { return joined == 1; },
        internal::LeftUntil(deadline));
    if (!came.ok()) return Fail(came);
    const auto* proof = reinterpret_cast<const char*>(region_.block(r).proof);
    if (!EqualInConstantTime({proof, kProofBytes}, Proof(options_, r))) {
      return Fail(absl::PermissionDeniedError(
          absl::StrCat("rank ", r, " does not know the secret of job ",
                       options_.job_id, ", epoch ", options_.epoch)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Collective>> ConnectShm(
    const ShmOptions& options, int fd) {
  FT_CHECK(options.rank >= 0 && options.rank < options.size);
  if (options.size > kMaxShmRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.size, " ranks are more than ", kMaxShmRanks,
                     " that may share memory"));
  }
  FT_ASSIGN_OR_RETURN(Region region, Region::Map(fd, options.size));
  auto ranks = std::make_unique<ShmCollective>(options, std::move(region));
  FT_RETURN_IF_ERROR(ranks->Join());
  return ranks;
}

}  // namespace ft
