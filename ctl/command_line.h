// SPDX-License-Identifier: Apache-2.0
//
// The whole command line: global options, every verb, what is said of a word
// that is none.

#pragma once

#include <memory>

#include "ctl/command.h"

namespace ft {

// Registers global options and verbs; all must outlive the result's parse.
std::unique_ptr<CLI::App> MakeCommandLine(GlobalOptions& options, int& code);

// Parses, runs the verb and returns the exit code of the process.
int RunCommandLine(int argc, const char* const* argv);

}  // namespace ft
