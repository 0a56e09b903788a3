// SPDX-License-Identifier: Apache-2.0
//
// Disks that fail, fill up and lose power. While a FaultEnv lives, everything
// below its root that goes through common/env.h or SQLite is done for real and
// recorded as well. Afterwards the record gives, for every moment, the folders
// that a power loss could have left: what was not synced is kept, lost, torn or
// kept out of order, and a name is as good as the last sync of its folder.
//
// Written from POSIX's promises alone, so it is harsher than any file system
// that we know.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/env.h"

namespace ft::testing {

// What was done to the files below the root, in order. Paths are relative.
class DiskRecord {
 public:
  struct Op {
    enum class Kind {
      kCreate,     // name of `file` at `path`
      kWrite,      // `bytes` at `offset` of `file`
      kTruncate,   // `file` to `offset`
      kSync,       // `file`
      kSyncDir,    // `path`
      kRename,     // `path` to `to`
      kLink,       // `file` also at `to`
      kUnlink,     // `path`
      kMakeDir,    // `path`
      kRemoveDir,  // `path`
      kMark,       // Somebody was told `path`.
    };
    Kind kind;
    int file = -1;
    std::string path = {}, to = {};
    int64_t offset = 0;
    std::string bytes = {};
  };

  // What becomes of that which is not synced.
  enum class Loss {
    kEverything,  // Nothing of it is kept.
    kNothing,     // All of it is: the process died, not the machine.
    kData,        // Names are kept, bytes are not.
    kNames,       // Bytes are kept, names are not.
    kRandom,      // Each write, and each half of one, by a coin.
  };

  size_t size() const { return ops_.size(); }
  const std::vector<Op>& ops() const { return ops_; }
  void Add(Op op) { ops_.push_back(std::move(op)); }

  // What was told before the op of this index.
  std::vector<std::string> MarksBefore(size_t end) const;

  // Makes in `dir` what is left when the power goes before the op `end`.
  void MakeAfterPowerLoss(size_t end, Loss loss, std::mt19937& random,
                          const std::string& dir) const;

 private:
  std::vector<Op> ops_;
};

// Thread-safe.
class FaultEnv : public FileEnv {
 public:
  // Puts itself in the place of the files and of SQLite's default VFS.
  explicit FaultEnv(std::string root);
  ~FaultEnv() override;

  // The k-th recorded call from now on fails with `error`, once; 1 is the next.
  void FailCall(int64_t k, int error);
  // The same of the k-th fsync, with EIO.
  void FailSync(int64_t k);
  // Whether that call came.
  bool has_failed() const;
  // Of which file, where that is known.
  std::string failed_path() const;
  // From now on no byte more finds room; what is there can be renamed, synced
  // and removed.
  void SetFull(bool is_full);
  // From now on there is room for so many bytes; files that go give theirs
  // back. Every byte written counts, be it over others.
  void SetRoom(int64_t bytes);
  int64_t room() const;
  // The process is dead: every call fails from now on and leaves nothing.
  void Die();
  bool is_dead() const;

  // Notes that somebody was told `what`.
  void Mark(const std::string& what);
  int64_t calls() const;
  DiskRecord TakeRecord();

  int Open(const char* path, int flags, mode_t mode) override;
  ssize_t Write(int fd, const void* bytes, size_t size) override;
  ssize_t WriteAt(int fd, const void* bytes, size_t size,
                  int64_t offset) override;
  int Truncate(int fd, int64_t size) override;
  int Allocate(int fd, int64_t size) override;
  int Sync(int fd) override;
  int Rename(const char* from, const char* to) override;
  int Link(const char* from, const char* to) override;
  int Unlink(const char* path) override;
  int MakeDir(const char* path, mode_t mode) override;
  int RemoveDir(const char* path) override;

  // For the VFS, which does the call itself: 0, or the error that it must fail
  // with.
  enum class Call { kGrow, kSync, kOther };
  int Before(Call call, const std::string& path = "");
  // The file that lies at a path. `is_new`: the call before made it.
  int FileAt(const std::string& path, bool is_new);
  // Before a name goes that may be the last of its file.
  void Forget(const std::string& path);
  void Note(DiskRecord::Op op);
  // Whether `path` lies below the root, and where.
  bool IsBelow(const std::string& path, std::string* relative) const;

 private:
  static constexpr int64_t kEndless = int64_t{1} << 60;

  int BeforeLocked(Call call, const std::string& path = "")
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int FileOf(int fd) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the room of what is written of `size` bytes before `error`, if that
  // is not 0, or before there is no more room: then `error` says so.
  size_t TakeRoom(size_t size, int& error)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetLocked(const std::string& path)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int FileAtLocked(const std::string& path, bool is_new)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string root_;
  mutable absl::Mutex mutex_;
  DiskRecord record_ ABSL_GUARDED_BY(mutex_);
  // By device and inode.
  std::map<std::pair<uint64_t, uint64_t>, int> files_ ABSL_GUARDED_BY(mutex_);
  int last_file_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t calls_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t fail_at_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t syncs_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t fail_sync_at_ ABSL_GUARDED_BY(mutex_) = 0;
  int fail_with_ ABSL_GUARDED_BY(mutex_) = 0;
  bool has_failed_ ABSL_GUARDED_BY(mutex_) = false;
  std::string failed_path_ ABSL_GUARDED_BY(mutex_);
  bool is_full_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t room_ ABSL_GUARDED_BY(mutex_) = kEndless;
  bool is_dead_ ABSL_GUARDED_BY(mutex_) = false;
};

// SQLite's default VFS under `env` until Uninstall.
void InstallFaultVfs(FaultEnv& env);
void UninstallFaultVfs();

}  // namespace ft::testing
