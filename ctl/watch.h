// SPDX-License-Identifier: Apache-2.0
//
// A job on the terminal: a live line of its progress, its events above, and a
// summary at the end.

#pragma once

#include <string>

#include "ctl/client.h"

namespace ft {

// Follows the job until it ends and returns its exit code. Ctrl-C stops the
// watching, never the job.
int WatchToEnd(Client& client, const GlobalOptions& options,
               const std::string& job_id);

// On stderr: the connection broke and is tried again.
void SayBreak(const absl::Status& status);

// 0, 10 or 11 by the job's end.
int ExitCodeOfJob(const v1::Job& job);

}  // namespace ft
