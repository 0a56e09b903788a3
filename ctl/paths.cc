// SPDX-License-Identifier: Apache-2.0

#include "ctl/paths.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "common/file.h"

namespace ft {
namespace {

// The daemons that get these paths have another working folder.
std::string Absolute(const std::string& path) {
  std::error_code error;  // There is no working folder any more.
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.string();
}

std::string HomeDir() {
  if (const char* home = std::getenv("HOME"); home != nullptr && *home) {
    return Absolute(home);
  }
  const passwd* user = getpwuid(getuid());
  return user != nullptr && user->pw_dir != nullptr ? user->pw_dir : "/";
}

}  // namespace

std::string DataHome() {
  // The XDG specification: a relative path is to be ignored.
  if (const char* data = std::getenv("XDG_DATA_HOME");
      data != nullptr && *data == '/') {
    return JoinPath(data, "ft");
  }
  return JoinPath(HomeDir(), ".local/share/ft");
}

std::string ProgramDir() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof(path) - 1);
  return size <= 0 ? "." : DirName(absl::string_view(path, size));
}

std::string ModelRootDir() {
  if (const char* root = std::getenv("FT_MODEL_ROOT")) {
    return Absolute(root);
  }
  return JoinPath(DataHome(), "models");
}

}  // namespace ft
