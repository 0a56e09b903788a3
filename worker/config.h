// SPDX-License-Identifier: Apache-2.0
//
// The flags of ft-worker.

#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace ft {

struct WorkerConfig {
  std::string data_dir;
  std::string coordinator;  // HOST:PORT of its worker listener.
  std::string token_file;
  std::string worker_id;
  int slots = 1;
  std::string model_root;
  std::string train_program;
  std::string http_address = "127.0.0.1:0";
  std::string endpoint_file;
  // For tests alone: common/failpoint.h.
  std::string failpoints;
  // All timers are multiplied by it; tests set it below 1.
  double timer_scale = 1;
  // Inputs kept for the next attempt.
  int64_t cache_bytes = int64_t{20} << 30;
  // Local snapshots: where (empty: DefaultSnapshotDir), and how much in all.
  std::string snapshot_dir;
  int64_t snapshot_bytes = int64_t{4} << 30;
  // Kept back on the disk of data_dir; 0: nothing.
  int64_t reserve_bytes = int64_t{64} << 20;
  // Whether processes stand by for the next ranks.
  bool warm_ranks = true;

  std::string cache_dir() const { return data_dir + "/cache/blobs"; }
  std::string jobs_dir() const { return data_dir + "/jobs"; }
  std::string temp_dir() const { return data_dir + "/tmp"; }
  std::string reserve_file() const { return data_dir + "/reserve"; }
  absl::Duration Scaled(absl::Duration timer) const {
    return timer * timer_scale;
  }
};

}  // namespace ft
