// SPDX-License-Identifier: Apache-2.0

#include "worker/snapshot_store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "artifact/snapshot_ring.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/id.h"
#include "common/log.h"
#include "common/status.h"

namespace ft {
namespace {

constexpr char kMemoryFileSystem[] = "/dev/shm";
constexpr absl::string_view kRingPrefix = "rank-";
// Ranks of a daemon that was killed die a moment after it.
constexpr absl::Duration kLockTimeout = absl::Seconds(2);

std::vector<std::string> NamesIn(const std::string& dir) {
  return ListDir(dir).value_or(std::vector<std::string>());
}

void Warn(absl::string_view what, const std::string& path,
          absl::string_view why) {
  Log(LogSeverity::kWarn, "worker", what, {{"path", path}, {"why", why}});
}

// The folder may lie where everybody can write: what is there must be ours.
absl::Status CheckOwner(const std::string& dir) {
  struct stat info = {};
  if (lstat(dir.c_str(), &info) != 0) {
    return ErrnoStatus(errno, absl::StrCat("stat ", dir));
  }
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid()) {
    return absl::FailedPreconditionError(absl::StrCat(
        dir,
        " is not a folder of this user; remove it, or give another "
        "--snapshot_dir"));
  }
  if (chmod(dir.c_str(), 0700) != 0) {
    return ErrnoStatus(errno, absl::StrCat("chmod ", dir));
  }
  return absl::OkStatus();
}

void TakeOverRing(const std::string& path) {
  const absl::StatusOr<int> broken = VerifySnapshots(path, kLockTimeout);
  if (broken.ok() && *broken == 0) return;
  if (broken.ok()) {
    Warn("a snapshot has rotted", path, absl::StrCat(*broken, " broken"));
    return;
  }
  Warn("a ring of snapshots is removed", path, broken.status().message());
  RemoveFile(path).IgnoreError();  // It is of no more use either way.
}

int64_t RingBytes(const std::string& job_dir) {
  int64_t bytes = 0;
  for (const std::string& name : NamesIn(job_dir)) {
    bytes += FileSize(JoinPath(job_dir, name)).value_or(0);
  }
  return bytes;
}

}  // namespace

std::string DefaultSnapshotDir(const std::string& data_dir) {
  char* const real = realpath(data_dir.c_str(), nullptr);
  const std::string path = real == nullptr ? data_dir : real;
  std::free(real);
  return JoinPath(kMemoryFileSystem,
                  absl::StrCat("ft-worker-", Sha256Hex(path).substr(0, 12)));
}

absl::StatusOr<SnapshotStore> SnapshotStore::Open(const std::string& dir,
                                                  int64_t max_bytes) {
  FT_RETURN_IF_ERROR(MakeDirs(dir, 0700));
  FT_RETURN_IF_ERROR(CheckOwner(dir));
  for (const std::string& job : NamesIn(dir)) {
    const std::string job_dir = JoinPath(dir, job);
    if (!IsLabel(job) || !IsDirectory(job_dir)) {
      Warn("not a job's snapshots: removed", job_dir, "foreign name");
      RemoveTree(job_dir).IgnoreError();  // Told; nothing depends on it.
      continue;
    }
    for (const std::string& name : NamesIn(job_dir)) {
      TakeOverRing(JoinPath(job_dir, name));
    }
  }
  return SnapshotStore(dir, max_bytes);
}

absl::StatusOr<SnapshotStore::Place> SnapshotStore::PlaceFor(
    const std::string& job_id, int rank, int ranks_here) const {
  const std::string job_dir = JoinPath(dir_, job_id);
  FT_RETURN_IF_ERROR(MakeDirs(job_dir, 0700));
  int64_t others = 0;
  for (const std::string& job : Jobs()) {
    if (job != job_id) others += RingBytes(JoinPath(dir_, job));
  }
  FT_ASSIGN_OR_RETURN(const int64_t free_bytes, FreeBytes(dir_));
  // What the job has already is counted as free: it is used again.
  const int64_t left =
      std::min(max_bytes_ - others, free_bytes / 10 * 9 + RingBytes(job_dir));
  return Place{.ring = JoinPath(job_dir, absl::StrCat(kRingPrefix, rank)),
               .bytes = std::max<int64_t>(0, left) / ranks_here};
}

std::vector<v1::SnapshotShard> SnapshotStore::Shards(
    const std::string& job_id) const {
  std::vector<v1::SnapshotShard> shards;
  const std::string job_dir = JoinPath(dir_, job_id);
  for (const std::string& name : NamesIn(job_dir)) {
    const auto seals = ReadSnapshotSeals(JoinPath(job_dir, name));
    if (!seals.ok()) continue;  // Removed meanwhile.
    for (const SnapshotSeal& seal : *seals) {
      v1::SnapshotShard& shard = shards.emplace_back();
      shard.set_job_id(job_id);
      shard.set_epoch(seal.epoch);
      shard.set_step(seal.step);
      shard.set_rank(seal.rank);
    }
  }
  return shards;
}

std::vector<v1::SnapshotShard> SnapshotStore::Shards() const {
  std::vector<v1::SnapshotShard> all;
  for (const std::string& job : Jobs()) {
    const std::vector<v1::SnapshotShard> shards = Shards(job);
    all.insert(all.end(), shards.begin(), shards.end());
  }
  return all;
}

std::vector<std::string> SnapshotStore::Jobs() const { return NamesIn(dir_); }

void SnapshotStore::Drop(const std::string& job_id) const {
  const absl::Status status = RemoveTree(JoinPath(dir_, job_id));
  if (!status.ok()) Warn("snapshots not removed", job_id, status.message());
}

void SnapshotStore::DropAll() const {
  for (const std::string& job : Jobs()) Drop(job);
  rmdir(dir_.c_str());  // Unless something came meanwhile.
}

}  // namespace ft
