// SPDX-License-Identifier: Apache-2.0

#include "formats/model_import.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/digest.h"
#include "common/env.h"
#include "common/file.h"
#include "common/status.h"
#include "formats/gguf_import.h"
#include "formats/hf_directory.h"

namespace ft {
namespace {

constexpr int64_t kMaxTokenizerBytes = int64_t{64} << 20;

absl::Status Copy(const std::string& from, const std::string& to) {
  const UniqueFd source(open(from.c_str(), O_RDONLY | O_CLOEXEC));
  if (!source.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", from));
  const UniqueFd target(
      Files().Open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!target.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", to));
  std::string buffer(size_t{1} << 20, '\0');
  while (true) {
    const ssize_t got = read(source.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("read ", from));
    if (got == 0) break;
    FT_RETURN_IF_ERROR(
        WriteAll(target.get(), {buffer.data(), static_cast<size_t>(got)}), to);
  }
  return Sync(target.get(), to);
}

// A link costs nothing; across file systems the bytes are copied.
absl::Status LinkOrCopy(const std::string& from, const std::string& to) {
  if (linkat(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), AT_SYMLINK_FOLLOW) ==
      0) {
    return SyncFile(to);
  }
  return Copy(from, to);
}

absl::Status CheckTokenizer(const std::string& dir) {
  std::string path = JoinPath(dir, "tokenizer.json");
  if (!Exists(path)) {
    // Of SentencePiece: turned into the other when it is read.
    const std::string pieces = JoinPath(dir, "tokenizer.model");
    if (!Exists(pieces)) {
      return absl::NotFoundError(absl::StrCat(
          path, ": is missing; save the model with a fast tokenizer"));
    }
    path = pieces;
  }
  FT_ASSIGN_OR_RETURN(const int64_t size, FileSize(path));
  if (size > kMaxTokenizerBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": ", size, " bytes, the limit is ", kMaxTokenizerBytes));
  }
  return absl::OkStatus();
}

absl::Status CopyModel(const std::string& from, const std::string& to,
                       const ImportProgressFn& progress) {
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                      ModelFileNames(from));
  ImportProgress state;
  for (const std::string& name : names) {
    FT_ASSIGN_OR_RETURN(const int64_t size, FileSize(JoinPath(from, name)));
    state.total_bytes += size;
  }
  for (const std::string& name : names) {
    state.what = name;
    if (progress) progress(state);
    FT_RETURN_IF_ERROR(LinkOrCopy(JoinPath(from, name), JoinPath(to, name)));
    FT_ASSIGN_OR_RETURN(const int64_t size, FileSize(JoinPath(to, name)));
    state.done_bytes += size;
  }
  return absl::OkStatus();
}

absl::Status ImportDirectory(const std::string& source,
                             const std::string& out_dir,
                             const ImportProgressFn& progress) {
  FT_RETURN_IF_ERROR(OpenHfDirectory(source).status());
  FT_RETURN_IF_ERROR(CheckTokenizer(source));
  return PublishDirectory(out_dir, [&](const std::string& dir) {
    return CopyModel(source, dir, progress);
  });
}

// A lock on a folder that ends with its process, however that ends; -1:
// somebody else has it.
int LockFolder(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

// Folders of runs that were killed: their names begin so, nobody locks them.
void RemoveAbandoned(const std::string& dir, const std::string& begin) {
  const absl::StatusOr<std::vector<std::string>> names = ListDir(dir);
  if (!names.ok()) return;  // The next step says why.
  for (const std::string& name : *names) {
    if (!absl::StartsWith(name, begin)) continue;
    const std::string path = JoinPath(dir, name);
    const UniqueFd lock(LockFolder(path));
    // It costs room only; whoever wants the room sees the error.
    if (lock.is_open()) RemoveTree(path).IgnoreError();
  }
}

}  // namespace

absl::Status CopyModelText(const std::string& from, const std::string& to) {
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                      ModelFileNames(from));
  FT_ASSIGN_OR_RETURN(const std::vector<std::string> weights,
                      WeightFileNames(from));
  for (const std::string& name : names) {
    if (name == "config.json" ||
        std::count(weights.begin(), weights.end(), name) > 0) {
      continue;
    }
    FT_RETURN_IF_ERROR(Copy(JoinPath(from, name), JoinPath(to, name)));
  }
  return absl::OkStatus();
}

absl::Status PublishDirectory(
    const std::string& target,
    const std::function<absl::Status(const std::string& dir)>& fill) {
  const std::string out(absl::StripSuffix(target, "/"));
  if (Exists(out)) {
    return absl::AlreadyExistsError(absl::StrCat(out, ": is already there"));
  }
  FT_RETURN_IF_ERROR(MakeDirs(DirName(out)));
  // Hidden: whoever lists the folder sees whole models alone.
  const std::string begin = absl::StrCat(".", BaseName(out), ".tmp-");
  RemoveAbandoned(DirName(out), begin);
  const std::string temporary =
      JoinPath(DirName(out), absl::StrCat(begin, RandomHex(6)));
  FT_RETURN_IF_ERROR(MakeDirs(temporary));
  const UniqueFd in_use(LockFolder(temporary));
  absl::Status status = fill(temporary);
  if (status.ok()) status = SyncDir(temporary);
  if (status.ok()) status = RenameDurably(temporary, out);
  if (!status.ok()) {
    RemoveTree(temporary).IgnoreError();  // The first error is the news.
  }
  return status;
}

absl::Status ImportModel(const std::string& source, const std::string& out_dir,
                         const ImportProgressFn& progress) {
  if (!Exists(source)) {
    return absl::NotFoundError(absl::StrCat(source, ": no such file"));
  }
  if (IsDirectory(source)) return ImportDirectory(source, out_dir, progress);
  FT_RETURN_IF_ERROR(RefusePickle(source));
  if (absl::EndsWithIgnoreCase(source, ".safetensors")) {
    return absl::InvalidArgumentError(absl::StrCat(
        source,
        ": weights alone are no model; give the directory with config.json and "
        "tokenizer.json"));
  }
  return ImportGguf(source, out_dir, progress);
}

}  // namespace ft
