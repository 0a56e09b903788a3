// SPDX-License-Identifier: Apache-2.0

#include "ctl/train_program.h"

#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>

#include "common/file.h"
#include "common/status.h"
#include "ctl/paths.h"

extern char** environ;

namespace ft {

absl::StatusOr<std::string> FindTrainProgram() {
  const std::string path = JoinPath(ProgramDir(), "ft-train");
  if (Exists(path)) return path;
  return absl::NotFoundError(
      absl::StrCat("ft-train is not installed beside ftctl (", path, ")"));
}

absl::StatusOr<int> RunTrainProgram(const std::vector<std::string>& words) {
  FT_ASSIGN_OR_RETURN(std::string program, FindTrainProgram());
  std::vector<std::string> owned = words;
  std::vector<char*> argv = {program.data()};
  for (std::string& word : owned) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, program.c_str(), nullptr, nullptr,
                                argv.data(), environ);
  if (error != 0) return ErrnoStatus(error, absl::StrCat("start ", program));
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace ft
