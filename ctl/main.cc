// SPDX-License-Identifier: Apache-2.0
//
// ftctl: the user's command line.

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "ctl/command_line.h"

int main(int argc, char** argv) {
  const int code = ft::RunCommandLine(argc, argv);
  // A disk that was full may show only here.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    std::fprintf(stderr, "cannot write the output: %s\n", std::strerror(errno));
    return code == 0 ? 1 : code;
  }
  return code;
}
