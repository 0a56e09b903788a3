// SPDX-License-Identifier: Apache-2.0

#include "ctl/daemon_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "common/status.h"

namespace ft {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(10);

std::vector<std::string> ArgumentsOf(pid_t pid) {
  const absl::StatusOr<std::string> text =
      ReadFile(absl::StrCat("/proc/", pid, "/cmdline"), 1 << 20);
  if (!text.ok() || text->empty()) return {};
  // Each argument ends with a NUL.
  return absl::StrSplit(absl::string_view(*text).substr(0, text->size() - 1),
                        '\0');
}

// The letter of proc(5); 0: there is no such process.
char StateOf(pid_t pid) {
  const absl::StatusOr<std::string> stat =
      ReadFile(absl::StrCat("/proc/", pid, "/stat"), 4096);
  if (!stat.ok()) return 0;
  // "PID (NAME) STATE ..."; the name may hold anything.
  const size_t at = stat->rfind(") ");
  return at == std::string::npos || at + 2 >= stat->size() ? 0
                                                           : (*stat)[at + 2];
}

// What the daemon tells of its start: its pid and, if exec fails, why.
struct Birth {
  pid_t pid = 0;
  int error = 0;
};

// Runs in the grandchild, between fork and exec: only calls that are safe
// there.
[[noreturn]] void ExecDaemon(char* const* argv, int log, int birth_fd) {
  setsid();
  Birth birth{.pid = getpid()};
  // The parent may not be there to read it; then nobody needs it.
  [[maybe_unused]] ssize_t put = write(birth_fd, &birth.pid, sizeof(pid_t));
  [[maybe_unused]] const int moved = chdir("/");  // Cannot fail.
  const int null = open("/dev/null", O_RDONLY);
  dup2(null, STDIN_FILENO);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  // With exec, not before: whoever waits for a lock that we inherited finds the
  // daemon, and not a process that is about to be one.
  for (int fd = 3; fd < 1024; ++fd) fcntl(fd, F_SETFD, FD_CLOEXEC);
  // Ctrl-C may have been ignored for us.
  signal(SIGINT, SIG_DFL);
  execv(argv[0], argv);
  birth.error = errno;
  put = write(birth_fd, &birth.error, sizeof(int));
  _exit(127);
}

}  // namespace

std::vector<DaemonProcess> FindDaemons(
    const std::vector<std::string>& programs) {
  std::vector<DaemonProcess> found;
  const absl::StatusOr<std::vector<std::string>> names = ListDir("/proc");
  if (!names.ok()) return found;
  for (const std::string& name : *names) {
    DaemonProcess process;
    if (!absl::SimpleAtoi(name, &process.pid)) continue;
    process.arguments = ArgumentsOf(process.pid);
    if (process.arguments.empty()) continue;
    process.program = BaseName(process.arguments[0]);
    if (std::count(programs.begin(), programs.end(), process.program) == 0) {
      continue;
    }
    const auto flag = std::find(process.arguments.begin(),
                                process.arguments.end(), "--data_dir");
    if (process.arguments.end() - flag < 2) continue;
    process.data_dir = *(flag + 1);
    found.push_back(std::move(process));
  }
  return found;
}

absl::StatusOr<pid_t> SpawnDaemon(const std::vector<std::string>& argv,
                                  const std::string& log) {
  const UniqueFd out(
      open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!out.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", log));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  std::vector<char*> words;
  for (const std::string& word : argv) {
    words.push_back(const_cast<char*>(word.c_str()));
  }
  words.push_back(nullptr);

  const pid_t child = fork();
  if (child < 0) return ErrnoStatus(errno, "fork");
  if (child == 0) {
    if (fork() != 0) _exit(0);  // The daemon is nobody's child.
    ExecDaemon(words.data(), out.get(), writer.get());
  }
  writer = UniqueFd();
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  // The end of the pipe comes with exec.
  Birth birth;
  static_assert(sizeof(birth) == sizeof(pid_t) + sizeof(int));
  size_t got = 0;
  while (got < sizeof(birth)) {
    const ssize_t more =
        read(reader.get(), reinterpret_cast<char*>(&birth) + got,
             sizeof(birth) - got);
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0) break;
    got += static_cast<size_t>(more);
  }
  if (got < sizeof(pid_t)) {
    return absl::UnavailableError(absl::StrCat("cannot start ", argv[0]));
  }
  if (birth.error != 0) {
    return ErrnoStatus(birth.error, absl::StrCat("cannot start ", argv[0]));
  }
  return birth.pid;
}

bool IsRunning(pid_t pid) {
  const char state = StateOf(pid);
  return state != 0 && state != 'Z' && state != 'X';
}

bool IsStopped(pid_t pid) {
  const char state = StateOf(pid);
  return state == 'T' || state == 't';
}

void EndProcess(pid_t pid, absl::Duration grace) {
  const absl::Time deadline = absl::Now() + grace;
  while (IsRunning(pid) && absl::Now() < deadline) absl::SleepFor(kPoll);
  if (!IsRunning(pid)) return;
  kill(pid, SIGKILL);
  // Nothing stops SIGKILL for long but a disk that hangs.
  const absl::Time insisted = absl::Now() + absl::Seconds(10);
  while (IsRunning(pid) && absl::Now() < insisted) absl::SleepFor(kPoll);
}

}  // namespace ft
