// SPDX-License-Identifier: Apache-2.0
//
// ft-train rank and ft-train run: a rank under its daemon, and a job alone.

#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/log.h"
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

// How the first of the ranks tells the others the gang's secret.
constexpr char kSecretVariable[] = "FT_GANG_SECRET";

// The other ranks of a job that runs alone: this program again, one a process.
absl::StatusOr<std::vector<pid_t>> StartOtherRanks(const RunCommand& command,
                                                   const std::string& secret) {
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
                                      absl::StrCat(rank)};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    // Not an argument: those are for everybody to read.
    setenv(kSecretVariable, absl::BytesToHexString(secret).c_str(), 1);
    pid_t pid = 0;
    const int error = posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr,
                                  argv.data(), environ);
    if (error != 0) return ErrnoStatus(error, "start a rank");
    pids.push_back(pid);
  }
  unsetenv(kSecretVariable);
  return pids;
}

}  // namespace

int RunRankCommand(const RankCommand& command) {
  DaemonLink link(command.link_fd, &DaemonGone);
  const absl::StatusOr<v1::RankStart> start = link.ReceiveStart(kStartTimeout);
  if (!start.ok()) return Report(start.status());
  const RankJob job = JobOf(*start);
  Log(LogSeverity::kInfo, "train", "rank started",
      {{"job", job.job_id},
       {"epoch", job.epoch},
       {"rank", job.rank},
       {"world", job.world}});
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

int RunRunCommand(const RunCommand& command) {
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
  if (const char* secret = std::getenv(kSecretVariable);
      command.rank > 0 && secret != nullptr) {
    job->secret = absl::HexStringToBytes(secret);
  }
  const std::string rendezvous = JoinPath(command.output, "rendezvous");
  std::vector<pid_t> others;
  if (command.rank == 0) {
    job->secret = RandomBytes(32);
    absl::Status status = MakeDirs(command.output);
    if (status.ok()) status = RemoveTree(rendezvous);
    if (status.ok()) status = MakeDirs(rendezvous, 0700);
    if (!status.ok()) return Report(status);
    absl::StatusOr<std::vector<pid_t>> started =
        StartOtherRanks(command, job->secret);
    if (!started.ok()) return Report(started.status());
    others = *std::move(started);
  }
  struct sigaction action = {};
  action.sa_handler = &Interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);

  NullLink link({.rendezvous_dir = rendezvous,
                 .progress = command.rank == 0 ? stderr : nullptr,
                 .interrupted = &interrupted});
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
  if (command.rank == 0) {
    RemoveTree(rendezvous).IgnoreError();  // Only addresses of dead ranks.
  }
  return code;
}

}  // namespace ft
