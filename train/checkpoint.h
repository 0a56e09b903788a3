// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints: everything an attempt needs to go on to the bit, by name and
// interval, never by rank.
//
//   step-000123/checkpoint.json                    written last
//   step-000123/shard-00000-of-00002.safetensors   keys of sharding/shard_state
//
// Each rank writes its shard; sizes and digests are gathered to rank 0, which
// then writes checkpoint.json: a folder without it is no checkpoint. Every file
// is written beside its place, synced and renamed. checkpoint.json has the
// digests of the shards, and its own: a changed byte anywhere is found.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "collective/collective.h"
#include "ft/v1/ranks.pb.h"
#include "sharding/zero.h"
#include "train/checkpoint_file.h"

namespace ft {

inline constexpr char kCheckpointFile[] = "checkpoint.json";

// Name of the folder: "step-000123".
std::string CheckpointName(int64_t step);

// Writes the checkpoint into `dir`/step-NNNNNN, removing what a dead attempt
// left there. Collective. Returns the files: this rank's own, and on rank 0
// all. An error that IsNoSpace: a disk is full, here or at another rank; there
// is no new checkpoint, but the ranks may go on. After any other, they cannot.
absl::StatusOr<v1::CheckpointFiles> WriteCheckpoint(
    const std::string& dir, const CheckpointInfo& info,
    const ShardedOptimizer& optimizer, Collective& ranks);

// Reads and verifies every file of the checkpoint in `dir`, then fills the
// optimizer.
// DATA_LOSS: a file is missing, has another size or digest, or lacks an
// element; the message names it. FAILED_PRECONDITION: the checkpoint is whole,
// but of other tensors or another format. On error nothing has changed.
absl::StatusOr<CheckpointInfo> LoadCheckpoint(const std::string& dir,
                                              ShardedOptimizer& optimizer);

// Only checkpoint.json. DATA_LOSS: it is not whole.
absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(const std::string& dir);

// The folders of `dir` that hold a checkpoint.json, the newest first.
std::vector<std::string> ListCheckpoints(const std::string& dir);

// Removes all but the newest `keep` up to `newest_step`, and of later steps
// what a dead attempt did not finish. Workspaces of other ranks than 0 have no
// checkpoint.json, so there each folder counts. Ranks may share `dir`.
absl::Status RemoveOldCheckpoints(const std::string& dir, int64_t newest_step,
                                  int64_t keep);

}  // namespace ft
