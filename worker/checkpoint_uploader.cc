// SPDX-License-Identifier: Apache-2.0

#include "worker/checkpoint_uploader.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/failpoint.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {
namespace {

// Of shards that wait for a coordinator that is away. Workers drop the oldest,
// so that they keep those of the same steps.
constexpr size_t kMostWaiting = 16;

}  // namespace

CheckpointUploader::CheckpointUploader(Options options, Host host)
    : options_(std::move(options)), host_(std::move(host)) {
  thread_ = std::thread([this] { Loop(); });
}

CheckpointUploader::~CheckpointUploader() {
  Stop();
  thread_.join();
}

void CheckpointUploader::Stop() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
}

bool CheckpointUploader::Stopping() const {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

bool CheckpointUploader::StopsWithin(absl::Duration wait) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&stopping_), wait);
}

void CheckpointUploader::AwaitIdle() {
  absl::MutexLock lock(&mutex_);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return (shards_.empty() && !is_busy_) || stopping_;
  };
  mutex_.Await(absl::Condition(&idle));
}

// A second name for each file: ranks keep their newest few only.
absl::Status CheckpointUploader::TakeOver(int rank,
                                          const v1::CheckpointFiles& files,
                                          std::string* dir) {
  *dir = JoinPath(options_.dir, absl::StrCat(files.step(), "-", rank));
  FT_RETURN_IF_ERROR(MakeDirs(*dir, 0700));
  for (const v1::LocalFile& file : files.own()) {
    const std::string from = JoinPath(files.dir(), file.path());
    const std::string to = JoinPath(*dir, file.path());
    if (link(from.c_str(), to.c_str()) != 0 && errno != EEXIST) {
      return ErrnoStatus(errno, absl::StrCat("link ", from));
    }
  }
  return absl::OkStatus();
}

void CheckpointUploader::Add(int rank, const v1::CheckpointFiles& files) {
  Shards shards{.step = files.step(), .files = files};
  const absl::Status taken = TakeOver(rank, files, &shards.dir);
  if (!taken.ok()) {
    host_.give_up(files.step(), taken);
    return;
  }
  std::vector<std::string> dropped;
  {
    absl::MutexLock lock(&mutex_);
    shards_.push_back(std::move(shards));
    while (shards_.size() > kMostWaiting) {
      dropped.push_back(std::move(shards_.front().dir));
      shards_.pop_front();
    }
  }
  // What cannot be removed goes with the attempt's folder.
  for (const std::string& dir : dropped) RemoveTree(dir).IgnoreError();
}

void CheckpointUploader::Loop() {
  const auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !shards_.empty() || stopping_;
  };
  while (true) {
    std::deque<Shards> shards;
    {
      absl::MutexLock lock(&mutex_);
      is_busy_ = !commits_.empty();
      mutex_.AwaitWithTimeout(
          absl::Condition(&wake),
          commits_.empty() ? absl::InfiniteDuration() : options_.poll);
      if (stopping_) {
        is_busy_ = false;
        return;
      }
      shards.swap(shards_);
      is_busy_ = true;
    }
    for (const Shards& some : shards) Send(some);
    CommitWhatIsWhole();
  }
}

absl::Status CheckpointUploader::Retry(
    const std::function<absl::Status()>& act) {
  while (true) {
    const absl::Status status = act();
    host_.note(status);
    if (!host_.is_passing(status) || StopsWithin(options_.pause)) {
      return status;
    }
  }
}

void CheckpointUploader::Send(const Shards& shards) {
  const absl::Status status = Retry([&]() -> absl::Status {
    for (const v1::LocalFile& file : shards.files.own()) {
      FT_RETURN_IF_ERROR(
          host_.upload(JoinPath(shards.dir, file.path()), file.sha256()),
          file.path());
    }
    return absl::OkStatus();
  });
  RemoveTree(shards.dir).IgnoreError();
  if (!status.ok()) {
    if (!Stopping()) host_.give_up(shards.step, status);
    return;
  }
  Pass(Failpoint::kShardUploaded);
  if (shards.files.all().empty()) return;  // Another rank commits.
  Commit& commit = commits_[shards.step];
  commit.deadline = absl::Now() + options_.shard_timeout;
  commit.manifest.Clear();
  commit.manifest.set_step(shards.step);
  for (const v1::LocalFile& file : shards.files.all()) {
    v1::FileEntry* entry = commit.manifest.add_files();
    entry->set_path(file.path());
    entry->set_bytes(file.bytes());
    entry->set_sha256(file.sha256());
  }
}

absl::Status CheckpointUploader::CommitIfWhole(const v1::Manifest& manifest,
                                               bool* is_whole) {
  std::vector<std::string> digests;
  for (const v1::FileEntry& file : manifest.files()) {
    digests.push_back(file.sha256());
  }
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> missing,
                      host_.find_missing(digests));
  *is_whole = missing.empty();
  if (!*is_whole) return absl::OkStatus();
  Pass(Failpoint::kShardsThere);
  return host_.commit(manifest);
}

// In order of steps. One that is not whole does not hold up a later one, which
// makes it needless.
void CheckpointUploader::CommitWhatIsWhole() {
  int64_t committed = -1;
  for (auto next = commits_.begin(); next != commits_.end();) {
    bool is_whole = false;
    const absl::Status status =
        Retry([&] { return CommitIfWhole(next->second.manifest, &is_whole); });
    if (Stopping()) return;
    if (status.ok() && is_whole) committed = next->first;
    if (!status.ok()) {
      host_.give_up(next->first, status);
    } else if (!is_whole && absl::Now() > next->second.deadline) {
      host_.give_up(next->first, absl::AbortedError(
                                     "shards were not stored by other workers "
                                     "in time"));
    } else if (!is_whole) {
      ++next;
      continue;
    }
    next = commits_.erase(next);
  }
  commits_.erase(commits_.begin(), commits_.upper_bound(committed));
}

}  // namespace ft
