// SPDX-License-Identifier: Apache-2.0
//
// ft-train rank and ft-train run: a rank under its daemon, and a job alone.

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "collective/file_rendezvous_store.h"
#include "common/digest.h"
#include "common/failpoint.h"
#include "common/file.h"
#include "common/log.h"
#include "common/process.h"
#include "common/shared_memory.h"
#include "common/status.h"
#include "train/commands.h"
#include "train/daemon_link.h"
#include "train/local_job.h"
#include "train/null_link.h"
#include "train/run.h"

extern char** environ;

namespace ft {
namespace {

constexpr absl::Duration kStartTimeout = absl::Minutes(10);

std::atomic<bool> interrupted{false};

void Interrupt(int) {
  // The second Ctrl-C ends at once: checkpoints appear by rename, so nothing
  // is broken.
  if (interrupted.exchange(true)) _exit(130);
}

void DaemonGone() { _exit(kExitError); }

int Report(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status)
             ? kExitInvalid
             : kExitError;
}

constexpr size_t kSecretBytes = 32;

// The end of a pipe that holds the gang's secret: how the first of the ranks
// tells it to another, on its standard input. Arguments are for everybody to
// read, and the environment for every process of the user.
absl::StatusOr<UniqueFd> SecretPipe(const std::string& secret) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  UniqueFd from(ends[0]);
  const UniqueFd into(ends[1]);
  FT_RETURN_IF_ERROR(WriteAll(into.get(), secret));
  return from;
}

std::string ReadSecret() {
  std::string secret(kSecretBytes, '\0');
  const ssize_t got = read(STDIN_FILENO, secret.data(), secret.size());
  secret.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return secret;  // A wrong one is refused when the ranks meet.
}

// The other ranks of a job that runs alone: this program again, one a process.
absl::StatusOr<std::vector<pid_t>> StartOtherRanks(const RunCommand& command,
                                                   const std::string& secret,
                                                   int shared_memory) {
  std::vector<pid_t> pids;
  for (int rank = 1; rank < command.world; ++rank) {
    std::vector<std::string> words = {command.program,
                                      "run",
                                      command.job_file,
                                      "--output",
                                      command.output,
                                      "--model_root",
                                      command.model_root,
                                      "--world",
                                      absl::StrCat(command.world),
                                      "--rank",
                                      absl::StrCat(rank),
                                      "--shared_memory_fd",
                                      absl::StrCat(shared_memory),
                                      "--rendezvous",
                                      command.rendezvous};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    FT_ASSIGN_OR_RETURN(const UniqueFd from, SecretPipe(secret));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, from.get(), STDIN_FILENO);
    pid_t pid = 0;
    const int error = posix_spawn(&pid, "/proc/self/exe", &actions, nullptr,
                                  argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return ErrnoStatus(error, "start a rank");
    pids.push_back(pid);
  }
  return pids;
}

// An empty folder of the user's own; what a killed run left is gone.
absl::Status MakeRendezvous(const std::string& dir) {
  if (Exists(dir)) FT_RETURN_IF_ERROR(RemoveTree(dir));
  return MakeDirs(dir, 0700);
}

}  // namespace

int RunRankCommand(const RankCommand& command) {
  KeepPrivate();
  DaemonLink link(command.link_fd, &DaemonGone);
  const absl::StatusOr<v1::RankStart> start = link.ReceiveStart(
      command.standby ? absl::InfiniteDuration() : kStartTimeout);
  if (!start.ok()) return Report(start.status());
  // So that /proc says which rank this is; one that stood by was started
  // without a name. What a library leaves where it runs goes with the attempt.
  if (chdir(start->workspace().c_str()) != 0) {
    return Report(ErrnoStatus(errno, start->workspace()));
  }
  RankJob job = JobOf(*start);
  const UniqueFd shared_memory = link.TakeSharedMemory();
  if (start->has_shared_memory()) {
    if (!shared_memory.is_open()) {
      return Report(absl::InternalError("no shared memory came with Start"));
    }
    job.shared_memory = shared_memory.get();
  }
  Log(LogSeverity::kInfo, "train", "rank started",
      {{"job", job.job_id},
       {"epoch", job.epoch},
       {"rank", job.rank},
       {"world", job.world}});
  if (const char* const table = std::getenv(kFailpointsVariable)) {
    const absl::Status opened = OpenFailpoints(table);
    if (!opened.ok()) return Report(opened);
  }
  Pass(Failpoint::kRankStarted);
  const RunOutcome outcome = RunRank(job, link, /*resume_own=*/false);
  if (!outcome.status.ok()) {
    Log(LogSeverity::kError, "train", "rank failed",
        {{"job", job.job_id},
         {"rank", job.rank},
         {"status", outcome.status.ToString()}});
  }
  link.Exit(outcome.ToExit());
  // Threads of the link and of libtorch may still run: destroying what they use
  // would only add ways to crash after the last words.
  std::fflush(nullptr);
  _exit(outcome.status.ok() ? kExitOk : kExitError);
}

int RunRunCommand(RunCommand command) {
  // A rank must not outlive the one that started it.
  if (command.rank > 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
  absl::StatusOr<RankJob> job =
      LoadLocalJob(command.job_file, command.model_root);
  if (!job.ok()) return Report(job.status());
  if (job->lanes() % command.world != 0) {
    std::fprintf(stderr, "--world %d does not divide %ld lanes\n",
                 command.world, static_cast<long>(job->lanes()));
    return kExitInvalid;
  }
  job->rank = command.rank;
  job->world = command.world;
  job->workspace = command.output;
  if (command.rank > 0) job->secret = ReadSecret();
  job->shared_memory = command.shared_memory_fd;
  UniqueFd shared_memory;
  std::vector<pid_t> others;
  if (command.rank == 0) {
    job->secret = RandomBytes(kSecretBytes);
    const absl::Status status = MakeDirs(command.output);
    if (!status.ok()) return Report(status);
    if (command.world > 1 && command.transport == "tcp") {
      command.rendezvous = JoinPath(command.output, "rendezvous");
      const absl::Status made = MakeRendezvous(command.rendezvous);
      if (!made.ok()) return Report(made);
    } else if (command.world > 1) {
      absl::StatusOr<UniqueFd> memory = CreateSharedMemory(
          "ft-ranks", command.world * kSharedMemoryBytesPerRank);
      if (!memory.ok()) return Report(memory.status());
      shared_memory = *std::move(memory);
      fcntl(shared_memory.get(), F_SETFD, 0);  // The others inherit it.
      job->shared_memory = shared_memory.get();
    }
    absl::StatusOr<std::vector<pid_t>> started =
        StartOtherRanks(command, job->secret, job->shared_memory);
    if (!started.ok()) return Report(started.status());
    others = *std::move(started);
  }
  struct sigaction action = {};
  action.sa_handler = &Interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);

  FileRendezvousStore rendezvous(command.rendezvous);
  NullLink link(
      {.progress = command.rank == 0 ? stderr : nullptr,
       .interrupted = &interrupted,
       .rendezvous = command.rendezvous.empty() ? nullptr : &rendezvous});
  const RunOutcome outcome = RunRank(*job, link, /*resume_own=*/true);
  int code = kExitOk;
  if (!outcome.status.ok()) {
    code = Report(outcome.status);
  } else if (outcome.yielded && command.rank == 0) {
    std::fprintf(stderr, "stopped after step %ld; the same command goes on\n",
                 static_cast<long>(outcome.last_step));
    code = kExitError;
  }
  for (const pid_t pid : others) {
    if (!outcome.status.ok()) kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  if (command.rank == 0 && !command.rendezvous.empty()) {
    RemoveTree(command.rendezvous)
        .IgnoreError();  // The next run makes it anew.
  }
  return code;
}

}  // namespace ft
