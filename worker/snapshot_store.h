// SPDX-License-Identifier: Apache-2.0
//
// Where the ranks of this worker keep their local snapshots: a folder on a
// memory file system, with a folder a job and in it a ring a rank
// (artifact/snapshot_ring.h). It outlives the daemon: the next one takes over
// what has its digest, and the coordinator says which jobs still want theirs.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ft/v1/workers.pb.h"

namespace ft {

// Thread-safe: its state is the file system.
class SnapshotStore {
 public:
  // Takes over `dir`, makes it if it is missing, and breaks what has rotted.
  // FAILED_PRECONDITION: it belongs to somebody else.
  static absl::StatusOr<SnapshotStore> Open(const std::string& dir,
                                            int64_t max_bytes);

  // A ring for a rank, and the most bytes it may take if `ranks_here` ranks of
  // the job share what is left. Makes the folder.
  struct Place {
    std::string ring;
    int64_t bytes = 0;
  };
  absl::StatusOr<Place> PlaceFor(const std::string& job_id, int rank,
                                 int ranks_here) const;

  // Every sealed snapshot, of one job or of all.
  std::vector<v1::SnapshotShard> Shards(const std::string& job_id) const;
  std::vector<v1::SnapshotShard> Shards() const;

  // The jobs that have rings here, with or without a seal.
  std::vector<std::string> Jobs() const;

  // Removes a job's rings. Ranks that still have them open lose nothing else.
  void Drop(const std::string& job_id) const;
  void DropAll() const;

 private:
  SnapshotStore(std::string dir, int64_t max_bytes)
      : dir_(std::move(dir)), max_bytes_(max_bytes) {}

  std::string dir_;
  int64_t max_bytes_;
};

// A folder on the machine's memory file system that only the worker with this
// data folder uses.
std::string DefaultSnapshotDir(const std::string& data_dir);

}  // namespace ft
