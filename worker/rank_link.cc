// SPDX-License-Identifier: Apache-2.0

#include "worker/rank_link.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/frame.h"
#include "common/no_space.h"

namespace ft {
namespace {

constexpr size_t kTailLines = 100;
constexpr size_t kMaxLineBytes = 16 << 10;
// Between the last words and the end of the process.
constexpr absl::Duration kExitGrace = absl::Seconds(5);

// Whether the process ended within the time; it stays to be waited for.
bool EndsWithin(pid_t pid, absl::Duration grace) {
  const absl::Time deadline = absl::Now() + grace;
  while (absl::Now() < deadline) {
    siginfo_t info = {};
    if (waitid(P_PID, static_cast<id_t>(pid), &info,
               WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid == pid) {
      return true;
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
  return false;
}

}  // namespace

RankLink::RankLink(int rank, SpawnedRank process, const std::string& log_file,
                   Callbacks callbacks)
    : rank_(rank),
      process_(std::move(process)),
      callbacks_(std::move(callbacks)),
      output_thread_([this, log_file] { ReadOutput(log_file); }),
      link_thread_([this] { ReadLink(); }) {}

RankLink::~RankLink() {
  Kill();
  link_thread_.join();
  output_thread_.join();
}

void RankLink::Send(const v1::ToRank& message) {
  // An error means that the rank is going; the reader sees it too.
  FrameWriter(process_.link.get())
      .Write(message.SerializeAsString())
      .IgnoreError();
}

void RankLink::SendWithFd(const v1::ToRank& message, int descriptor) {
  FrameWriter(process_.link.get())
      .WriteWithFd(message.SerializeAsString(), descriptor)
      .IgnoreError();  // As above.
}

void RankLink::Kill() {
  absl::MutexLock lock(&mutex_);
  if (gone_) return;
  killed_ = true;
  KillRank(process_.pid);
}

void RankLink::ReadLink() {
  FrameReader frames(process_.link.get());
  bool is_garbage = false;
  while (true) {
    const absl::StatusOr<std::string> bytes = frames.Read();
    v1::FromRank message;
    is_garbage = bytes.ok() ? !message.ParseFromString(*bytes)
                            : absl::IsInvalidArgument(bytes.status());
    if (!bytes.ok() || is_garbage) break;
    if (message.has_exit()) {
      absl::MutexLock lock(&mutex_);
      last_words_ = message.exit();
    }
    callbacks_.on_message(rank_, message);
  }
  // The link is closed: the process has ended or is about to. One that talks
  // nonsense is not.
  if (is_garbage || !EndsWithin(process_.pid, kExitGrace)) {
    Kill();
  }
  RankEnding ending{.rank = rank_};
  {
    absl::MutexLock lock(&mutex_);
    gone_ = true;  // From here on the pid may be another's.
    ending.end = WaitForRank(process_.pid);
    // What it printed last belongs to the report.
    mutex_.AwaitWithTimeout(absl::Condition(&output_over_), absl::Seconds(1));
    ending.was_killed = killed_;
    ending.last_words = last_words_;
    ending.log_tail = tail_;
  }
  callbacks_.on_end(ending);
}

void RankLink::TakeLine(std::string line, int log_fd) {
  if (line.size() > kMaxLineBytes) {
    line.resize(kMaxLineBytes - 3);
    line += "...";
  }
  if (log_fd >= 0) {
    // A full disk must not stop the rank; the line still goes to the
    // coordinator.
    if (IsNoSpace(WriteAll(log_fd, line + "\n"))) callbacks_.on_full_log();
  }
  {
    absl::MutexLock lock(&mutex_);
    tail_.push_back(line);
    if (tail_.size() > kTailLines) tail_.pop_front();
  }
  callbacks_.on_line(rank_, line);
}

void RankLink::ReadOutput(const std::string& log_file) {
  const UniqueFd log(
      open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  std::string pending;
  char buffer[1 << 14];
  while (true) {
    const ssize_t got = read(process_.output.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    pending.append(buffer, static_cast<size_t>(got));
    size_t end;
    while ((end = pending.find('\n')) != std::string::npos) {
      TakeLine(pending.substr(0, end), log.get());
      pending.erase(0, end + 1);
    }
    // A rank that never ends its line must not fill our memory.
    if (pending.size() > 4 * kMaxLineBytes) {
      TakeLine(std::exchange(pending, {}), log.get());
    }
  }
  if (!pending.empty()) TakeLine(pending, log.get());
  absl::MutexLock lock(&mutex_);
  output_over_ = true;
}

}  // namespace ft
