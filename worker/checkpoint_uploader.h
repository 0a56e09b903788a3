// SPDX-License-Identifier: Apache-2.0
//
// Stores the checkpoints that the ranks of an attempt hand over, while the
// ranks go on. Every shard is sent as soon as it is here; a checkpoint is
// committed when the shards of all workers are stored. No shard waits for
// another checkpoint: whoever waits may be the one that others wait for.

#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ft/v1/artifacts.pb.h"
#include "ft/v1/ranks.pb.h"

namespace ft {

class CheckpointUploader {
 public:
  struct Options {
    // Where handed over files lie until they are sent; made when needed.
    std::string dir;
    // Between looks at whether the other workers have stored their shards.
    absl::Duration poll = absl::Milliseconds(200);
    // After that a checkpoint is given up: another worker could not store its
    // part. The next checkpoint is another try.
    absl::Duration shard_timeout = absl::Minutes(2);
    // Between tries while the coordinator is away.
    absl::Duration pause = absl::Seconds(1);
  };
  // What it does to the world. Called on the uploader's thread.
  struct Host {
    std::function<absl::Status(const std::string& path,
                               const std::string& sha256)>
        upload;
    std::function<absl::StatusOr<std::vector<std::string>>(
        const std::vector<std::string>& sha256)>
        find_missing;
    // Job, epoch and kind of the manifest are filled in by the host.
    std::function<absl::Status(const v1::Manifest&)> commit;
    // Whether another try may find better.
    std::function<bool(const absl::Status&)> is_passing;
    // Hears how each try went.
    std::function<void(const absl::Status&)> note;
    // A checkpoint is not stored.
    std::function<void(int64_t step, const absl::Status& why)> give_up;
  };

  CheckpointUploader(Options options, Host host);
  // Stops and waits.
  ~CheckpointUploader();

  // Takes the files over: the rank may remove its names of them.
  void Add(int rank, const v1::CheckpointFiles& files);
  // Returns when all is stored or given up, or after Stop.
  void AwaitIdle();
  // Gives up what is not stored, without a word.
  void Stop();

 private:
  struct Shards {
    int64_t step = 0;
    std::string dir;
    v1::CheckpointFiles files;
  };
  struct Commit {
    v1::Manifest manifest;
    absl::Time deadline;
  };

  void Loop();
  bool Stopping() const ABSL_LOCKS_EXCLUDED(mutex_);
  bool StopsWithin(absl::Duration wait) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Tries until it went well or will never.
  absl::Status Retry(const std::function<absl::Status()>& act);
  void Send(const Shards& shards);
  void CommitWhatIsWhole();
  absl::Status CommitIfWhole(const v1::Manifest& manifest, bool* is_whole);
  absl::Status TakeOver(int rank, const v1::CheckpointFiles& files,
                        std::string* dir);

  const Options options_;
  const Host host_;

  // Of the thread alone: by step, those of which shards may be missing.
  std::map<int64_t, Commit> commits_;

  mutable absl::Mutex mutex_;
  std::deque<Shards> shards_ ABSL_GUARDED_BY(mutex_);
  bool is_busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ft
