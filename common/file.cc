// SPDX-License-Identifier: Apache-2.0

#include "common/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "common/digest.h"
#include "common/env.h"
#include "common/failpoint.h"
#include "common/status.h"

namespace ft {
namespace {

void (*on_sync_failure)(const absl::Status&) = nullptr;
constexpr absl::string_view kTemporarySuffix = ".tmp-";

}  // namespace

void UniqueFd::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  std::string bytes;
  char buffer[1 << 16];
  while (true) {
    const ssize_t got = read(fd.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", path));
    if (got == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(got));
    if (static_cast<int64_t>(bytes.size()) > max_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat(path, ": larger than ", max_bytes, " bytes"));
    }
  }
}

absl::Status WriteAll(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = Files().Write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return ErrnoStatus(errno, "write");
    bytes.remove_prefix(static_cast<size_t>(put));
  }
  return absl::OkStatus();
}

absl::Status Sync(int fd, absl::string_view path) {
  if (Files().Sync(fd) == 0) return absl::OkStatus();
  const absl::Status error = ErrnoStatus(errno, absl::StrCat("fsync ", path));
  if (on_sync_failure != nullptr) on_sync_failure(error);
  return error;
}

void SetSyncFailureHandler(void (*handler)(const absl::Status&)) {
  on_sync_failure = handler;
}

absl::Status WriteFileAtomic(const std::string& path, absl::string_view bytes,
                             int mode) {
  const std::string temp = absl::StrCat(path, kTemporarySuffix, RandomHex(6));
  const auto write_temp = [&]() -> absl::Status {
    UniqueFd fd(Files().Open(temp.c_str(),
                             O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", temp));
    FT_RETURN_IF_ERROR(WriteAll(fd.get(), bytes), temp);
    Pass(Failpoint::kAtomicWritten);
    return Sync(fd.get(), temp);
  };
  absl::Status status = write_temp();
  Pass(Failpoint::kAtomicSynced);
  if (status.ok() && Files().Rename(temp.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, absl::StrCat("rename ", temp, " to ", path));
  }
  if (!status.ok()) {
    Files().Unlink(temp.c_str());
    return status;
  }
  Pass(Failpoint::kAtomicRenamed);
  return SyncDir(DirName(path));
}

absl::Status RemoveTemporaries(const std::string& path) {
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                      ListDir(DirName(path)));
  const std::string prefix = absl::StrCat(BaseName(path), kTemporarySuffix);
  for (const std::string& name : names) {
    if (!absl::StartsWith(name, prefix)) continue;
    FT_RETURN_IF_ERROR(RemoveFile(JoinPath(DirName(path), name)));
  }
  return absl::OkStatus();
}

absl::Status SyncFile(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  return Sync(fd.get(), path);
}

absl::Status SyncDir(const std::string& path) {
  return SyncFile(path.empty() ? "." : path);
}

absl::Status MakeDirs(const std::string& path, int mode) {
  std::string made;
  for (const absl::string_view part : absl::StrSplit(path, '/')) {
    absl::StrAppend(&made, made.empty() && part.empty() ? "" : part, "/");
    if (part.empty() || IsDirectory(made)) continue;
    if (Files().MakeDir(made.c_str(), static_cast<mode_t>(mode)) == 0) {
      const absl::string_view folder(made.data(), made.size() - 1);
      FT_RETURN_IF_ERROR(SyncDir(DirName(folder)));
    } else if (errno != EEXIST) {
      return ErrnoStatus(errno, absl::StrCat("mkdir ", made));
    }
  }
  if (!IsDirectory(path)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": exists and is no folder"));
  }
  return absl::OkStatus();
}

absl::Status RemoveTree(const std::string& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return ErrnoStatus(errno, absl::StrCat("remove ", path));
  }
  if (!S_ISDIR(info.st_mode)) return RemoveFile(path);
  const absl::StatusOr<std::vector<std::string>> names = ListDir(path);
  // Another process may be faster; what matters is that it is gone.
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    FT_RETURN_IF_ERROR(RemoveTree(JoinPath(path, name)));
  }
  if (Files().RemoveDir(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, absl::StrCat("remove ", path));
  }
  return absl::OkStatus();
}

absl::Status RemoveFile(const std::string& path) {
  if (Files().Unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, absl::StrCat("remove ", path));
  }
  return absl::OkStatus();
}

absl::Status RenameDurably(const std::string& from, const std::string& to) {
  if (Files().Rename(from.c_str(), to.c_str()) != 0) {
    return ErrnoStatus(errno, absl::StrCat("rename ", from, " to ", to));
  }
  FT_RETURN_IF_ERROR(SyncDir(DirName(to)));
  return DirName(from) == DirName(to) ? absl::OkStatus()
                                      : SyncDir(DirName(from));
}

absl::StatusOr<std::vector<std::string>> ListDir(const std::string& path) {
  DIR* dir = opendir(path.c_str());
  if (dir == nullptr) return ErrnoStatus(errno, absl::StrCat("list ", path));
  std::vector<std::string> names;
  while (const dirent* entry = readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<int64_t> FileSize(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return ErrnoStatus(errno, absl::StrCat("stat ", path));
  }
  return static_cast<int64_t>(info.st_size);
}

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

bool IsDirectory(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

absl::StatusOr<int64_t> FreeBytes(const std::string& path) {
  struct statvfs info;
  if (statvfs(path.c_str(), &info) != 0) {
    return ErrnoStatus(errno, absl::StrCat("statvfs ", path));
  }
  return static_cast<int64_t>(info.f_bavail) *
         static_cast<int64_t>(info.f_frsize);
}

std::string JoinPath(absl::string_view dir, absl::string_view name) {
  if (dir.empty() || (!name.empty() && name.front() == '/')) {
    return std::string(name);
  }
  return absl::StrCat(dir, dir.back() == '/' ? "" : "/", name);
}

std::string DirName(absl::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) return ".";
  return slash == 0 ? "/" : std::string(path.substr(0, slash));
}

std::string BaseName(absl::string_view path) {
  const size_t slash = path.rfind('/');
  return std::string(slash == absl::string_view::npos ? path
                                                      : path.substr(slash + 1));
}

bool IsSafeRelativePath(absl::string_view path) {
  if (path.empty() || path.size() > 1024 || path.front() == '/') return false;
  for (const char c : path) {
    if (static_cast<unsigned char>(c) < 0x20 || c == '\\' || c == 0x7F) {
      return false;
    }
  }
  for (const absl::string_view part : absl::StrSplit(path, '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

absl::StatusOr<TempDir> TempDir::Create(const std::string& parent) {
  const char* from_environment = std::getenv("TMPDIR");
  const std::string base = !parent.empty() ? parent
                           : from_environment != nullptr
                               ? std::string(from_environment)
                               : "/tmp";
  std::string path = JoinPath(base, "ft-XXXXXX");
  if (mkdtemp(path.data()) == nullptr) {
    return ErrnoStatus(errno, absl::StrCat("make a folder in ", base));
  }
  return TempDir(path);
}

TempDir::~TempDir() {
  // Nobody could act on a failure here.
  if (!path_.empty()) RemoveTree(path_).IgnoreError();
}

}  // namespace ft
