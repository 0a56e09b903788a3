// SPDX-License-Identifier: Apache-2.0
//
// A crash writes its stack to stderr, so that it lands among the last lines of
// the rank and in its exit report.

#pragma once

namespace ft {

// For SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL and SIGTRAP; the process then
// ends by that signal as it would have. `program` is argv[0].
void WriteStackOnCrash(const char* program);

}  // namespace ft
