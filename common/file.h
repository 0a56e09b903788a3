// SPDX-License-Identifier: Apache-2.0
//
// Files whose loss would matter: read with a limit, written so that after a
// crash either the old or the new content is there, never a part. All writing
// goes through env.h.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ft {

// Owns a file descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd() { Close(); }
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = other.Release();
    }
    return *this;
  }

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  int Release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void Close();

 private:
  int fd_ = -1;
};

// The whole file. RESOURCE_EXHAUSTED: it is larger than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes);

// Puts `bytes` at `path` by a temporary file beside it, fsync, rename and fsync
// of the folder. On error `path` is unchanged.
absl::Status WriteFileAtomic(const std::string& path, absl::string_view bytes,
                             int mode = 0644);

// Removes what a WriteFileAtomic of `path` left that was killed. Only while
// nobody writes there.
absl::Status RemoveTemporaries(const std::string& path);

// Writes all of `bytes` at the descriptor's position.
absl::Status WriteAll(int fd, absl::string_view bytes);

// fsync of an open file or folder; `path` is for the message. After a failure
// nobody can say what is on the disk, and a second fsync that succeeds says
// nothing: a daemon ends and recovers from what was durable before.
absl::Status Sync(int fd, absl::string_view path);

// What Sync calls before it returns an error. Default: nothing.
void SetSyncFailureHandler(void (*handler)(const absl::Status&));

// fsync of the folder, so that renames in it are durable.
absl::Status SyncDir(const std::string& path);

// fsync of one file.
absl::Status SyncFile(const std::string& path);

// Makes the folder and those above it, durably. OK if it exists.
absl::Status MakeDirs(const std::string& path, int mode = 0755);

// Removes a folder and all in it, following no symbolic link. OK if missing.
absl::Status RemoveTree(const std::string& path);

// Removes a file. OK if missing.
absl::Status RemoveFile(const std::string& path);

// Renames and makes both folders durable.
absl::Status RenameDurably(const std::string& from, const std::string& to);

// The names in a folder but "." and "..", sorted.
absl::StatusOr<std::vector<std::string>> ListDir(const std::string& path);

absl::StatusOr<int64_t> FileSize(const std::string& path);
bool Exists(const std::string& path);
bool IsDirectory(const std::string& path);

// Bytes that an ordinary user may still write on the file system of `path`.
absl::StatusOr<int64_t> FreeBytes(const std::string& path);

// "a/b" from "a" and "b"; an absolute `name` stays as it is.
std::string JoinPath(absl::string_view dir, absl::string_view name);

// The part before and after the last '/'.
std::string DirName(absl::string_view path);
std::string BaseName(absl::string_view path);

// Whether `path` is relative, at most 1,024 bytes, without empty, "." or ".."
// parts, backslashes or control characters: safe to join below a folder.
bool IsSafeRelativePath(absl::string_view path);

// A folder of its own, removed with the object.
class TempDir {
 public:
  // `parent` empty: $TMPDIR or /tmp.
  static absl::StatusOr<TempDir> Create(const std::string& parent = "");
  ~TempDir();
  TempDir(TempDir&& other) noexcept : path_(std::move(other.path_)) {
    other.path_.clear();
  }
  TempDir& operator=(TempDir&&) = delete;

  const std::string& path() const { return path_; }

 private:
  explicit TempDir(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace ft
