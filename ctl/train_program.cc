// SPDX-License-Identifier: Apache-2.0

#include "ctl/train_program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "common/file.h"
#include "common/status.h"
#include "ctl/paths.h"

namespace ft {
namespace {

void ReadToEnd(int fd, std::string& bytes) {
  char buffer[4096];
  while (true) {
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return;
    bytes.append(buffer, static_cast<size_t>(got));
  }
}

}  // namespace

absl::StatusOr<std::string> FindTrainProgram() {
  const std::string path = JoinPath(ProgramDir(), "ft-train");
  if (Exists(path)) return path;
  return absl::NotFoundError(
      absl::StrCat("ft-train is not installed beside ftctl (", path, ")"));
}

absl::StatusOr<int> RunTrainProgram(const std::vector<std::string>& words,
                                    std::string* output) {
  FT_ASSIGN_OR_RETURN(std::string program, FindTrainProgram());
  std::vector<std::string> owned = words;
  std::vector<char*> argv = {program.data()};
  for (std::string& word : owned) argv.push_back(word.data());
  argv.push_back(nullptr);
  int ends[2] = {-1, -1};
  if (output != nullptr && pipe2(ends, O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "pipe");
  }
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  std::fflush(stdout);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, absl::StrCat("start ", program));
  if (pid == 0) {
    // It must not stay behind when we are killed.
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127);
    if (writer.is_open()) dup2(writer.get(), STDOUT_FILENO);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  writer.Close();
  if (output != nullptr) ReadToEnd(reader.get(), *output);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) return 128 + WTERMSIG(status);  // As shells say it.
  return WEXITSTATUS(status);
}

}  // namespace ft
