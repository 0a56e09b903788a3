// SPDX-License-Identifier: Apache-2.0

#include "worker/rank_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/failpoint.h"
#include "common/status.h"

extern char** environ;

namespace ft {
namespace {

constexpr int kLinkFd = 3;
// Control threads come before arithmetic when the cores are short.
constexpr int kNiceness = 5;

// What runs between fork and exec: only calls that are safe there.
[[noreturn]] void ExecRank(char* const* argv, char* const* envp, int link,
                           int output, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before the line above.
  if (getppid() != parent) _exit(127);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  // The link may lie where another descriptor must go.
  const int kept_link = fcntl(link, F_DUPFD, 10);
  const int kept_output = fcntl(output, F_DUPFD, 10);
  const int null = open("/dev/null", O_RDONLY);
  dup2(null, STDIN_FILENO);
  dup2(kept_output, STDOUT_FILENO);
  dup2(kept_output, STDERR_FILENO);
  dup2(kept_link, kLinkFd);
  for (int fd = kLinkFd + 1; fd < 4096; ++fd) close(fd);
  setpriority(PRIO_PROCESS, 0, kNiceness);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  execve(argv[0], argv, envp);
  _exit(127);
}

absl::StatusOr<SpawnedRank> Fork(const std::string& program,
                                 const std::string& workspace, bool stands_by) {
  int link[2], output[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link) != 0) {
    return ErrnoStatus(errno, "socketpair");
  }
  SpawnedRank rank{.link = UniqueFd(link[0])};
  const UniqueFd their_link(link[1]);
  if (pipe2(output, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  rank.output = UniqueFd(output[0]);
  const UniqueFd their_output(output[1]);

  std::vector<std::string> words = {program,       "rank",
                                    "--workspace", workspace,
                                    "--link_fd",   absl::StrCat(kLinkFd)};
  if (stands_by) words.push_back("--standby");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  // The wait policy is read when libgomp loads, before any of our code runs: it
  // is all that the daemon adds to the environment.
  std::vector<std::string> extra = {"OMP_WAIT_POLICY=passive",
                                    "GOMP_SPINCOUNT=0"};
  const std::string failpoints = absl::StrCat(kFailpointsVariable, "=");
  if (!FailpointsPath().empty()) {
    extra.push_back(absl::StrCat(failpoints, FailpointsPath()));
  }
  std::vector<char*> envp;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!absl::StartsWith(*entry, "OMP_WAIT_POLICY=") &&
        !absl::StartsWith(*entry, "GOMP_SPINCOUNT=") &&
        !absl::StartsWith(*entry, failpoints)) {
      envp.push_back(*entry);
    }
  }
  for (std::string& entry : extra) envp.push_back(entry.data());
  envp.push_back(nullptr);

  const pid_t parent = getpid();
  rank.pid = fork();
  if (rank.pid < 0) return ErrnoStatus(errno, "fork");
  if (rank.pid == 0) {
    ExecRank(argv.data(), envp.data(), their_link.get(), their_output.get(),
             parent);
  }
  return rank;
}

}  // namespace

struct RankSpawner::Request {
  const std::string& program;
  const std::string& workspace;
  const bool stands_by;
  absl::StatusOr<SpawnedRank> result = absl::UnknownError("");
  bool is_done = false;
};

RankSpawner::RankSpawner() : thread_([this] { Loop(); }) {}

RankSpawner::~RankSpawner() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  thread_.join();
}

absl::StatusOr<SpawnedRank> RankSpawner::Spawn(const std::string& program,
                                               const std::string& workspace,
                                               bool stands_by) {
  Request request{program, workspace, stands_by};
  absl::MutexLock lock(&mutex_);
  requests_.push_back(&request);
  mutex_.Await(absl::Condition(&request.is_done));
  return std::move(request.result);
}

void RankSpawner::Loop() {
  const auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closing_ || !requests_.empty();
  };
  while (true) {
    Request* request;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&wake));
      if (requests_.empty()) return;
      request = requests_.front();
      requests_.erase(requests_.begin());
    }
    absl::StatusOr<SpawnedRank> rank =
        Fork(request->program, request->workspace, request->stands_by);
    absl::MutexLock lock(&mutex_);
    request->result = std::move(rank);
    request->is_done = true;
  }
}

RankEnd WaitForRank(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  RankEnd end;
  if (WIFSIGNALED(status)) end.signal = WTERMSIG(status);
  if (WIFEXITED(status)) end.exit_code = WEXITSTATUS(status);
  // What it started must not stay behind.
  kill(-pid, SIGKILL);
  return end;
}

void KillRank(pid_t pid) {
  kill(-pid, SIGKILL);
  kill(pid, SIGKILL);
}

}  // namespace ft
