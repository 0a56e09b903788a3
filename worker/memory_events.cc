// SPDX-License-Identifier: Apache-2.0

#include "worker/memory_events.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/file.h"

namespace ft {
namespace {

constexpr size_t kMaxBytes = 1 << 16;

}  // namespace

MemoryEvents::MemoryEvents(std::string file) : file_(std::move(file)) {
  absl::MutexLock lock(&mutex_);
  known_ = Count();
}

int64_t MemoryEvents::Count() const {
  if (file_.empty()) return 0;
  const absl::StatusOr<std::string> text = ReadFile(file_, kMaxBytes);
  if (!text.ok()) return 0;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    int64_t count = 0;
    if (absl::StartsWith(line, "oom_kill ") &&
        absl::SimpleAtoi(line.substr(sizeof("oom_kill ") - 1), &count)) {
      return count;
    }
  }
  return 0;
}

void MemoryEvents::LookLocked(absl::Time now) {
  const int64_t count = Count();
  for (; known_ < count; ++known_) kills_.push_back(now);
  while (!kills_.empty() && now - kills_.front() > kMemory) {
    kills_.pop_front();
  }
}

void MemoryEvents::Look(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  LookLocked(now);
}

int MemoryEvents::Take(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  LookLocked(now);
  const int taken = static_cast<int>(kills_.size());
  // The other kills may be of ranks whose ends are still to come.
  if (taken > 0) kills_.pop_front();
  return taken;
}

std::string FindMemoryEvents(absl::string_view cgroup,
                             const std::string& mount) {
  std::vector<std::string> candidates;
  for (const absl::string_view line : absl::StrSplit(cgroup, '\n')) {
    // "0::/path" is cgroup 2, "4:memory:/path" cgroup 1.
    const std::vector<std::string> parts =
        absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    if (parts[1].empty()) {
      candidates.push_back(absl::StrCat(mount, parts[2], "/memory.events"));
    } else if (parts[1] == "memory") {
      candidates.push_back(
          absl::StrCat(mount, "/memory", parts[2], "/memory.oom_control"));
    }
  }
  // In a container the path may be the host's.
  candidates.push_back(absl::StrCat(mount, "/memory.events"));
  candidates.push_back(absl::StrCat(mount, "/memory/memory.oom_control"));
  for (const std::string& file : candidates) {
    if (ReadFile(file, kMaxBytes).ok()) return file;
  }
  return "";
}

}  // namespace ft
