// SPDX-License-Identifier: Apache-2.0

#include "common/stop_token.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "absl/time/clock.h"
#include "common/check.h"

namespace ft {
namespace {

// The handler may only touch what lives for ever.
StopSignals* installed = nullptr;

}  // namespace

StopSignals::StopSignals() {
  int ends[2];
  FT_CHECK(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
  read_fd_ = ends[0];
  write_fd_ = ends[1];
}

StopSignals& StopSignals::Install() {
  if (installed != nullptr) return *installed;
  installed = new StopSignals();
  struct sigaction action = {};
  action.sa_handler = &StopSignals::Handle;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return *installed;
}

void StopSignals::Handle(int) {
  installed->count_.fetch_add(1);
  // A full pipe is readable already.
  [[maybe_unused]] const ssize_t put = write(installed->write_fd_, "s", 1);
}

bool StopSignals::Wait(int wanted, absl::Duration timeout) const {
  const absl::Time deadline = absl::Now() + timeout;
  while (count() < wanted) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    // The pipe stays readable after the first signal: then only time helps.
    pollfd ready{
        .fd = count() == 0 ? read_fd_ : -1, .events = POLLIN, .revents = 0};
    poll(&ready, 1,
         static_cast<int>(
             std::min<int64_t>(absl::ToInt64Milliseconds(left) + 1, 100)));
  }
  return true;
}

}  // namespace ft
