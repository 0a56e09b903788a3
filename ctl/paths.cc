// SPDX-License-Identifier: Apache-2.0

#include "ctl/paths.h"

#include <unistd.h>

#include <cstdlib>

#include "common/file.h"

namespace ft {

std::string DataHome() {
  if (const char* data = std::getenv("XDG_DATA_HOME");
      data != nullptr && *data) {
    return JoinPath(data, "ft");
  }
  const char* home = std::getenv("HOME");
  return JoinPath(home == nullptr ? "." : home, ".local/share/ft");
}

std::string ProgramDir() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof(path) - 1);
  return size <= 0 ? "." : DirName(absl::string_view(path, size));
}

std::string ModelRootDir() {
  if (const char* root = std::getenv("FT_MODEL_ROOT")) return root;
  return JoinPath(DataHome(), "models");
}

}  // namespace ft
