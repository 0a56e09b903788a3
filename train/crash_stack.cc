// SPDX-License-Identifier: Apache-2.0

#include "train/crash_stack.h"

#include <csignal>

#include "absl/debugging/failure_signal_handler.h"
#include "absl/debugging/symbolize.h"

namespace ft {

void WriteStackOnCrash(const char* program) {
  absl::InitializeSymbolizer(program);
  absl::FailureSignalHandlerOptions options;
  options.symbolize_stacktrace = true;
  options.use_alternate_stack = true;  // A stack may be what overflowed.
  options.alarm_on_failure_secs = 3;   // A handler that hangs ends too.
  absl::InstallFailureSignalHandler(options);
  // It handles this too, but who is told to end has not crashed.
  std::signal(SIGTERM, SIG_DFL);
}

}  // namespace ft
