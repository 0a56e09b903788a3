// SPDX-License-Identifier: Apache-2.0
//
// What every verb of ftctl shares: options, where the coordinator is, how
// results are printed and errors told. Exit codes: 0 ok, 1 error, 2 usage,
// 3 invalid job, 4 not found, 5 denied, 6 conflict, 7 unavailable, 8 timeout,
// 9 does not fit, 10 job failed, 11 cancelled, 12 held.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace CLI {
class App;
}  // namespace CLI

namespace ft {

struct GlobalOptions {
  std::string address;           // Empty: the local service's.
  std::string token_file;        // Empty: the local service's.
  std::string output = "table";  // table | json | yaml | name
  bool no_headers = false;
};

// Registers the verbs; the chosen one puts its exit code into `code`.
void AddLocalCommands(CLI::App& app, GlobalOptions& options, int& code);
void AddPlanCommand(CLI::App& app, GlobalOptions& options, int& code);
void AddJobCommands(CLI::App& app, GlobalOptions& options, int& code);
void AddResultCommands(CLI::App& app, GlobalOptions& options, int& code);

// The exit code of an error.
int ExitCodeOf(const absl::Status& status);

// Says the error on stderr, with every wrong field, and returns its code.
int Fail(const absl::Status& status);

}  // namespace ft
