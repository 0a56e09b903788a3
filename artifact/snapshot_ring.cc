// SPDX-License-Identifier: Apache-2.0

#include "artifact/snapshot_ring.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/check.h"
#include "common/digest.h"
#include "common/status.h"

namespace ft {
namespace {

constexpr size_t kPage = 4096;
constexpr int kSlots = 2;
constexpr uint64_t kMagic = 0x31676E5253746600;  // "\0ftSRng1"
constexpr absl::Duration kLockPoll = absl::Milliseconds(5);
static_assert(std::endian::native == std::endian::little);

// A seal as it lies in its page.
struct SealPage {
  uint64_t magic;
  uint64_t epoch;
  int64_t step;
  int32_t rank;
  int32_t ranks;
  int64_t bytes;
  char sha256[64];
  uint32_t crc32c;  // Of all before it.
  uint32_t unused;
};
static_assert(sizeof(SealPage) == 112);

uint32_t CrcOf(const SealPage& page) {
  return Crc32c(
      {reinterpret_cast<const char*>(&page), offsetof(SealPage, crc32c)});
}

size_t RoundUp(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

size_t SlotBytes(size_t file_bytes) {
  return (file_bytes - kSlots * kPage) / kSlots;
}

std::optional<SnapshotSeal> ParseSeal(const std::byte* at, size_t file_bytes) {
  SealPage page;
  std::memcpy(&page, at, sizeof(page));
  if (page.magic != kMagic || page.crc32c != CrcOf(page) || page.bytes < 0 ||
      static_cast<size_t>(page.bytes) > SlotBytes(file_bytes)) {
    return std::nullopt;
  }
  return SnapshotSeal{.epoch = page.epoch,
                      .step = page.step,
                      .rank = page.rank,
                      .ranks = page.ranks,
                      .bytes = page.bytes,
                      .sha256 = std::string(page.sha256, sizeof(page.sha256))};
}

void WriteSeal(std::byte* at, const SnapshotSeal& seal) {
  SealPage page{.magic = kMagic,
                .epoch = seal.epoch,
                .step = seal.step,
                .rank = seal.rank,
                .ranks = seal.ranks,
                .bytes = seal.bytes};
  FT_CHECK(seal.sha256.size() == sizeof(page.sha256));
  std::memcpy(page.sha256, seal.sha256.data(), sizeof(page.sha256));
  page.crc32c = CrcOf(page);
  // A process that dies in the middle leaves a page with another CRC.
  std::memcpy(at, &page, sizeof(page));
}

void BreakSeal(std::byte* at) {
  std::memset(at, 0, sizeof(SealPage));
  // Before a byte of the payload changes.
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

std::string DigestOf(std::span<const std::byte> bytes) {
  Sha256 sha;
  sha.Update(bytes.data(), bytes.size());
  return sha.FinishHex();
}

absl::Status LockRing(int fd, const std::string& path, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return ErrnoStatus(errno, absl::StrCat("lock ", path));
    }
    if (absl::Now() > deadline) {
      return absl::UnavailableError(
          absl::StrCat(path, ": another process still holds it"));
    }
    absl::SleepFor(kLockPoll);
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> BytesOf(int fd, const std::string& path) {
  struct stat info = {};
  if (fstat(fd, &info) != 0) {
    return ErrnoStatus(errno, absl::StrCat("stat ", path));
  }
  return static_cast<size_t>(info.st_size);
}

void NewestFirst(std::vector<SnapshotSeal>& seals) {
  std::sort(seals.begin(), seals.end(), [](const auto& a, const auto& b) {
    return std::pair(a.epoch, a.step) > std::pair(b.epoch, b.step);
  });
}

}  // namespace

int64_t SnapshotRing::FileBytes(int64_t payload_bytes) {
  return static_cast<int64_t>(
      kSlots * (kPage + RoundUp(static_cast<size_t>(payload_bytes))));
}

absl::StatusOr<std::unique_ptr<SnapshotRing>> SnapshotRing::Open(
    const std::string& path, int64_t payload_bytes,
    absl::Duration lock_timeout) {
  UniqueFd fd(
      open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  FT_RETURN_IF_ERROR(LockRing(fd.get(), path, lock_timeout));
  const auto bytes = static_cast<size_t>(FileBytes(payload_bytes));
  FT_ASSIGN_OR_RETURN(const size_t old_bytes, BytesOf(fd.get(), path));
  if (old_bytes != bytes && ftruncate(fd.get(), 0) != 0) {
    return ErrnoStatus(errno, absl::StrCat("empty ", path));
  }
  // Also after a crash in the middle of this: what is there stays.
  const int error = posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes));
  if (error != 0) {
    RemoveFile(path).IgnoreError();  // The error below says more.
    return ErrnoStatus(error,
                       absl::StrCat("room for ", bytes, " bytes at ", path));
  }
  void* const base =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (base == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("map ", path));
  return std::unique_ptr<SnapshotRing>(new SnapshotRing(
      std::move(fd), path, static_cast<std::byte*>(base), bytes));
}

SnapshotRing::~SnapshotRing() { munmap(base_, bytes_); }

std::span<std::byte> SnapshotRing::Slot(int slot) const {
  const size_t size = SlotBytes(bytes_);
  return {base_ + kSlots * kPage + slot * size, size};
}

std::vector<SnapshotSeal> SnapshotRing::Seals() const {
  std::vector<SnapshotSeal> seals;
  for (int slot = 0; slot < kSlots; ++slot) {
    if (auto seal = ParseSeal(base_ + slot * kPage, bytes_)) {
      seals.push_back(*std::move(seal));
    }
  }
  NewestFirst(seals);
  return seals;
}

absl::StatusOr<std::span<const std::byte>> SnapshotRing::Read(
    int64_t step) const {
  for (int slot = 0; slot < kSlots; ++slot) {
    const auto seal = ParseSeal(base_ + slot * kPage, bytes_);
    if (!seal.has_value() || seal->step != step) continue;
    const std::span<const std::byte> payload =
        Slot(slot).first(static_cast<size_t>(seal->bytes));
    const std::string found = DigestOf(payload);
    if (found != seal->sha256) {
      return absl::DataLossError(
          absl::StrCat(path_, ": snapshot of step ", step, ": sha256 is ",
                       found.substr(0, 8), "..., its seal says ",
                       seal->sha256.substr(0, 8), "..."));
    }
    return payload;
  }
  return absl::NotFoundError(
      absl::StrCat(path_, " has no snapshot of step ", step));
}

void SnapshotRing::KeepOnly(int64_t step) {
  for (int slot = 0; slot < kSlots; ++slot) {
    const auto seal = ParseSeal(base_ + slot * kPage, bytes_);
    if (seal.has_value() && seal->step != step) BreakSeal(base_ + slot * kPage);
  }
}

std::span<std::byte> SnapshotRing::Begin(int64_t kept_step) {
  FT_CHECK(open_slot_ < 0);
  open_slot_ = 0;
  const auto first = ParseSeal(base_, bytes_);
  if (first.has_value() && first->step == kept_step) open_slot_ = 1;
  BreakSeal(base_ + open_slot_ * kPage);
  return Slot(open_slot_);
}

SnapshotSeal SnapshotRing::Seal(SnapshotSeal seal) {
  FT_CHECK(open_slot_ >= 0);
  const std::span<const std::byte> payload = Slot(open_slot_);
  seal.bytes = static_cast<int64_t>(payload.size());
  seal.sha256 = DigestOf(payload);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  WriteSeal(base_ + open_slot_ * kPage, seal);
  open_slot_ = -1;
  return seal;
}

absl::StatusOr<std::vector<SnapshotSeal>> ReadSnapshotSeals(
    const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  FT_ASSIGN_OR_RETURN(const size_t bytes, BytesOf(fd.get(), path));
  std::vector<SnapshotSeal> seals;
  if (bytes < kSlots * kPage) return seals;  // Being made.
  for (int slot = 0; slot < kSlots; ++slot) {
    std::byte page[sizeof(SealPage)];
    if (pread(fd.get(), page, sizeof(page), slot * kPage) != sizeof(page)) {
      return ErrnoStatus(errno, absl::StrCat("read ", path));
    }
    if (auto seal = ParseSeal(page, bytes)) seals.push_back(*std::move(seal));
  }
  NewestFirst(seals);
  return seals;
}

absl::StatusOr<int> VerifySnapshots(const std::string& path,
                                    absl::Duration lock_timeout) {
  const UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  FT_RETURN_IF_ERROR(LockRing(fd.get(), path, lock_timeout));
  FT_ASSIGN_OR_RETURN(const size_t bytes, BytesOf(fd.get(), path));
  if (bytes < kSlots * kPage) return 0;
  void* const base =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (base == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("map ", path));
  auto* const at = static_cast<std::byte*>(base);
  int broken = 0;
  for (int slot = 0; slot < kSlots; ++slot) {
    const auto seal = ParseSeal(at + slot * kPage, bytes);
    if (!seal.has_value()) continue;
    const std::span<const std::byte> payload(
        at + kSlots * kPage + slot * SlotBytes(bytes),
        static_cast<size_t>(seal->bytes));
    if (DigestOf(payload) == seal->sha256) continue;
    BreakSeal(at + slot * kPage);
    ++broken;
  }
  munmap(base, bytes);
  return broken;
}

}  // namespace ft
