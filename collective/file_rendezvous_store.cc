// SPDX-License-Identifier: Apache-2.0

#include "collective/file_rendezvous_store.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "collective/socket.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {
namespace {

constexpr int64_t kMaxValueBytes = 64 << 10;
constexpr absl::Duration kPoll = absl::Milliseconds(5);

}  // namespace

absl::StatusOr<std::string> FileRendezvousStore::PathOf(
    absl::string_view key) const {
  const std::string name = absl::StrReplaceAll(key, {{"/", "_"}});
  if (!IsSafeRelativePath(name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\" cannot be the name of a file"));
  }
  return JoinPath(dir_, name);
}

absl::Status FileRendezvousStore::Set(absl::string_view key,
                                      absl::string_view value) {
  FT_ASSIGN_OR_RETURN(const std::string path, PathOf(key));
  if (Exists(path)) {
    FT_ASSIGN_OR_RETURN(const std::string old, ReadFile(path, kMaxValueBytes));
    if (old == value) return absl::OkStatus();
    return absl::AlreadyExistsError(absl::StrCat(path, " has another value"));
  }
  return WriteFileAtomic(path, value, /*mode=*/0600);
}

absl::StatusOr<std::string> FileRendezvousStore::Get(absl::string_view key,
                                                     absl::Duration timeout) {
  FT_ASSIGN_OR_RETURN(const std::string path, PathOf(key));
  const internal::Deadline deadline = internal::After(timeout);
  while (!Exists(path)) {
    if (internal::IsOver(deadline)) {
      return absl::DeadlineExceededError(absl::StrCat(
          "no rank wrote ", path, " within ", absl::FormatDuration(timeout)));
    }
    absl::SleepFor(kPoll);
  }
  return ReadFile(path, kMaxValueBytes);
}

}  // namespace ft
