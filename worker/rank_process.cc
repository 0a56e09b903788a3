// SPDX-License-Identifier: Apache-2.0

#include "worker/rank_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/check.h"
#include "common/status.h"

extern char** environ;

namespace ft {
namespace {

constexpr int kRankNiceness = 5;

// Everything the child needs, made before the fork: after it, only calls that
// are safe between fork and exec.
struct ChildPlan {
  std::vector<char*> argv;
  std::vector<char*> envp;
  const char* path = nullptr;
  const char* work_dir = nullptr;
  int link = -1;
  int output = -1;
  int input = -1;
  int failure = -1;  // Gets the errno of what went wrong.
  pid_t parent = -1;
};

[[noreturn]] void FailChild(const ChildPlan& plan) {
  const int error = errno;
  [[maybe_unused]] const ssize_t put =
      ::write(plan.failure, &error, sizeof(error));
  ::_exit(127);
}

// Under memory pressure the kernel takes a rank, not the daemon.
void OfferToOomKiller() {
  const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  [[maybe_unused]] const ssize_t put = ::write(fd, "500", 3);
  ::close(fd);
}

[[noreturn]] void RunChild(const ChildPlan& plan) {
  ::setpgid(0, 0);
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) FailChild(plan);
  if (::getppid() != plan.parent) ::_exit(127);  // It died before prctl.
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  ::setpriority(PRIO_PROCESS, 0, kRankNiceness);
  OfferToOomKiller();

  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGPIPE, SIGTERM, SIGINT}) {
    ::signal(signal, SIG_DFL);
  }
  // The daemon, not the terminal, ends a rank.
  ::signal(SIGINT, SIG_IGN);

  if (::dup2(plan.input, STDIN_FILENO) < 0 ||
      ::dup2(plan.output, STDOUT_FILENO) < 0 ||
      ::dup2(plan.output, STDERR_FILENO) < 0) {
    FailChild(plan);
  }
  // dup2 onto itself would keep close-on-exec.
  const int link = ::fcntl(plan.link, F_DUPFD, kRankLinkFd + 2);
  const int failure =
      ::fcntl(plan.failure, F_DUPFD_CLOEXEC, kRankLinkFd + 2);
  if (link < 0 || failure < 0 || ::dup2(link, kRankLinkFd) < 0) {
    FailChild(plan);
  }
  // Nothing else of the daemon's may be inherited; `failure` closes on exec.
  ::close(link);
  if (failure != kRankLinkFd + 1 && ::dup3(failure, kRankLinkFd + 1,
                                           O_CLOEXEC) < 0) {
    FailChild(plan);
  }
  ::syscall(SYS_close_range, kRankLinkFd + 2, ~0U, 0);
  ChildPlan last = plan;
  last.failure = kRankLinkFd + 1;
  if (::chdir(plan.work_dir) != 0) FailChild(last);
  ::execve(plan.path, plan.argv.data(), plan.envp.data());
  FailChild(last);
}

bool IsWaitPolicy(absl::string_view entry) {
  return absl::StartsWith(entry, "OMP_WAIT_POLICY=") ||
         absl::StartsWith(entry, "GOMP_SPINCOUNT=");
}

// The daemon's environment; idle OpenMP threads of a rank sleep, for other
// ranks share the machine. How many there are comes from the job spec.
std::vector<std::string> RankEnvironment() {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!IsWaitPolicy(*entry)) result.emplace_back(*entry);
  }
  result.emplace_back("OMP_WAIT_POLICY=passive");
  result.emplace_back("GOMP_SPINCOUNT=0");
  return result;
}

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

struct Ends {
  UniqueFd ours;
  UniqueFd theirs;
};

absl::StatusOr<Ends> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  return Ends{.ours = UniqueFd(fds[0]), .theirs = UniqueFd(fds[1])};
}

absl::StatusOr<Ends> MakeLink() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoStatus(errno, "socketpair");
  }
  return Ends{.ours = UniqueFd(fds[0]), .theirs = UniqueFd(fds[1])};
}

absl::Status SetNonBlocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "fcntl");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SpawnedRank> SpawnRank(const RankProgram& program) {
  FT_ASSIGN_OR_RETURN(Ends link, MakeLink());
  FT_ASSIGN_OR_RETURN(Ends output, MakePipe());
  FT_ASSIGN_OR_RETURN(Ends failure, MakePipe());
  FT_RETURN_IF_ERROR(SetNonBlocking(link.ours.get()));
  FT_RETURN_IF_ERROR(SetNonBlocking(output.ours.get()));
  const UniqueFd input(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!input.is_open()) return ErrnoStatus(errno, "open /dev/null");

  std::vector<std::string> words = {program.path};
  words.insert(words.end(), program.arguments.begin(),
               program.arguments.end());
  std::vector<std::string> environment = RankEnvironment();
  const ChildPlan plan{.argv = Pointers(words),
                       .envp = Pointers(environment),
                       .path = program.path.c_str(),
                       .work_dir = program.work_dir.c_str(),
                       .link = link.theirs.get(),
                       .output = output.theirs.get(),
                       .input = input.get(),
                       .failure = failure.theirs.get(),
                       .parent = ::getpid()};
  const pid_t pid = ::fork();
  if (pid < 0) return ErrnoStatus(errno, "fork");
  if (pid == 0) RunChild(plan);

  ::setpgid(pid, pid);  // Also here: a kill may come before the child's own.
  failure.theirs.Close();
  int error = 0;
  ssize_t got = 0;
  do {
    got = ::read(failure.ours.get(), &error, sizeof(error));
  } while (got < 0 && errno == EINTR);
  if (got != 0) {  // End of file: exec went well.
    Reap(pid);
    return ErrnoStatus(error, absl::StrCat("run ", program.path));
  }
  SpawnedRank rank{.pid = pid,
                   .pid_fd = UniqueFd(static_cast<int>(
                       ::syscall(SYS_pidfd_open, pid, 0))),
                   .link = std::move(link.ours),
                   .output = std::move(output.ours)};
  if (!rank.pid_fd.is_open()) {
    const int pid_error = errno;
    KillRankTree(pid);
    Reap(pid);
    return ErrnoStatus(pid_error, "pidfd_open");
  }
  ::fcntl(rank.pid_fd.get(), F_SETFD, FD_CLOEXEC);
  return rank;
}

void KillRankTree(pid_t pid) {
  ::kill(-pid, SIGKILL);
  ::kill(pid, SIGKILL);
}

bool HasEnded(pid_t pid) {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(pid), &info,
                  WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == pid;
}

ExitStatus Reap(pid_t pid) {
  int status = 0;
  pid_t reaped = 0;
  do {
    reaped = ::waitpid(pid, &status, 0);
  } while (reaped < 0 && errno == EINTR);
  FT_CHECK(reaped == pid);
  if (WIFSIGNALED(status)) return {.signal = WTERMSIG(status)};
  return {.exit_code = WEXITSTATUS(status)};
}

double CpuSeconds(pid_t pid) {
  const absl::StatusOr<std::string> text =
      ReadFile(absl::StrCat("/proc/", pid, "/stat"), 4096);
  if (!text.ok()) return 0;
  // Fields after the command's name, which may hold anything but ends in ')'.
  const size_t name_end = text->rfind(')');
  if (name_end == std::string::npos) return 0;
  const std::vector<std::string> fields =
      absl::StrSplit(text->substr(name_end + 1), ' ', absl::SkipEmpty());
  constexpr size_t kUserTicks = 11;  // utime and stime, counted from `state`.
  int64_t user = 0;
  int64_t system = 0;
  if (fields.size() <= kUserTicks + 1 ||
      !absl::SimpleAtoi(fields[kUserTicks], &user) ||
      !absl::SimpleAtoi(fields[kUserTicks + 1], &system)) {
    return 0;
  }
  return static_cast<double>(user + system) /
         static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace ft
