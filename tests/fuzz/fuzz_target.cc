// SPDX-License-Identifier: Apache-2.0

#include "tests/fuzz/fuzz_target.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace ft::fuzz {
namespace {

std::vector<TargetInfo>& MutableTargets() {
  static std::vector<TargetInfo> targets;
  return targets;
}

}  // namespace

const std::vector<TargetInfo>& Targets() {
  std::sort(
      MutableTargets().begin(), MutableTargets().end(),
      [](const TargetInfo& a, const TargetInfo& b) { return a.name < b.name; });
  return MutableTargets();
}

Registration::Registration(const char* name, Target run, Mutator mutate) {
  MutableTargets().push_back({.name = name, .run = run, .mutate = mutate});
}

std::string InputFile(absl::string_view bytes) {
  static const int fd = memfd_create("input", MFD_CLOEXEC);
  FT_CHECK(fd >= 0);
  FT_CHECK(ftruncate(fd, static_cast<off_t>(bytes.size())) == 0);
  FT_CHECK(pwrite(fd, bytes.data(), bytes.size(), 0) ==
           static_cast<ssize_t>(bytes.size()));
  return absl::StrCat("/proc/self/fd/", fd);
}

}  // namespace ft::fuzz
