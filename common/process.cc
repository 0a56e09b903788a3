// SPDX-License-Identifier: Apache-2.0

#include "common/process.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>

namespace ft {
namespace {

constexpr rlim_t kDescriptors = 65'536;

}  // namespace

void KeepPrivate() {
  umask(077);
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
}

void TakeDescriptors() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = std::min(files.rlim_max, kDescriptors);
  setrlimit(RLIMIT_NOFILE, &files);
}

}  // namespace ft
