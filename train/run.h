// SPDX-License-Identifier: Apache-2.0
//
// A rank's whole life: assemble, resume, steps, evaluation, checkpoints,
// export.

#pragma once

#include "absl/status/status.h"
#include "train/job.h"
#include "train/link.h"

namespace ft {

// How it ended, besides the status.
struct RunOutcome {
  absl::Status status;
  bool yielded = false;     // Ended after a checkpoint, as asked.
  bool non_finite = false;  // numeric.on_nan: stop.
  int64_t last_step = 0;

  v1::RankExit ToExit() const;
};

// Trains the job as rank job.rank of job.world. Begins at
// job.source_checkpoint_dir, or, if `resume_own`, at the newest whole
// checkpoint in the workspace. Exports lie in <workspace>/export.
RunOutcome RunRank(const RankJob& job, Link& link, bool resume_own);

}  // namespace ft
