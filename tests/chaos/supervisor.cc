// SPDX-License-Identifier: Apache-2.0

#include "tests/chaos/supervisor.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/check.h"
#include "common/file.h"

namespace ft::testing {
namespace {

// RestartSec of systemd.
constexpr absl::Duration kRestartPause = absl::Milliseconds(100);
constexpr absl::Duration kLook = absl::Milliseconds(2);

}  // namespace

Supervisor::Supervisor(std::string log_dir)
    : log_dir_(std::move(log_dir)), thread_([this] { Loop(); }) {}

Supervisor::~Supervisor() {
  {
    absl::MutexLock hold(&mutex_);
    closing_ = true;
  }
  thread_.join();
  absl::MutexLock hold(&mutex_);
  for (auto& [name, program] : programs_) {
    if (program.pid == 0) continue;
    kill(program.pid, SIGKILL);
    waitpid(program.pid, nullptr, 0);
  }
}

void Supervisor::Start(const std::string& name,
                       std::vector<std::string> words) {
  absl::MutexLock hold(&mutex_);
  Program& program = programs_[name];
  program.words = std::move(words);
  Spawn(name, program);
}

bool Supervisor::Kill(const std::string& name) {
  absl::MutexLock hold(&mutex_);
  const Program& program = programs_.at(name);
  // Not waited for yet, so the pid is still its own.
  return program.pid != 0 && kill(program.pid, SIGKILL) == 0;
}

pid_t Supervisor::Pid(const std::string& name) const {
  absl::MutexLock hold(&mutex_);
  return programs_.at(name).pid;
}

int Supervisor::lives(const std::string& name) const {
  absl::MutexLock hold(&mutex_);
  return programs_.at(name).lives;
}

absl::Time Supervisor::started(const std::string& name) const {
  absl::MutexLock hold(&mutex_);
  return programs_.at(name).started;
}

std::string Supervisor::LogFile(const std::string& name) const {
  return JoinPath(log_dir_, name + ".log");
}

std::vector<std::string> Supervisor::strange_ends() const {
  absl::MutexLock hold(&mutex_);
  return strange_ends_;
}

void Supervisor::Loop() {
  while (true) {
    absl::MutexLock hold(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&closing_), kLook)) return;
    for (auto& [name, program] : programs_) {
      if (program.pid != 0) Reap(name, program);
      if (program.pid == 0 && absl::Now() >= program.restart_at) {
        Spawn(name, program);
      }
    }
  }
}

void Supervisor::Reap(const std::string& name, Program& program) {
  int status = 0;
  if (waitpid(program.pid, &status, WNOHANG) != program.pid) return;
  program.pid = 0;
  program.restart_at = absl::Now() + kRestartPause;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return;
  strange_ends_.push_back(absl::StrCat(
      name, WIFSIGNALED(status) ? " was ended by signal " : " exited with ",
      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), " after ",
      absl::FormatDuration(absl::Now() - program.started)));
}

void Supervisor::Spawn(const std::string& name, Program& program) {
  std::vector<char*> argv;
  for (std::string& word : program.words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string log = LogFile(name);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0600);
  pid_t pid = 0;
  FT_CHECK(
      posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  program.pid = pid;
  ++program.lives;
  program.started = absl::Now();
}

}  // namespace ft::testing
