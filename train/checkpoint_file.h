// SPDX-License-Identifier: Apache-2.0
//
// checkpoint.json: what a checkpoint is and which files it has. No torch, so
// that sanitizers and fuzzers see the reader; checkpoint.h reads and writes the
// folder.

#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/loader.h"
#include "ft/v1/ranks.pb.h"

namespace ft {

inline constexpr int64_t kMaxCheckpointJson = 16 << 20;
inline constexpr int64_t kMaxCheckpointFiles = 10'000;

// What checkpoint.json says besides its files.
struct CheckpointInfo {
  std::string job_id;
  int64_t step = 0;
  int ranks = 1;
  int zero_stage = 1;
  int64_t lanes = 1;
  int64_t seed = 0;
  Cursor cursor;
  std::string model_digest;
  std::string dataset_digest;
  std::string layout_sha256;
  // What the bits depend on besides: isa, threads, torch.
  std::map<std::string, std::string> fingerprint;
};

struct CheckpointFile {
  CheckpointInfo info;
  // By name: {"shape": [...], "dtype": "F32", "kinds": [...]}.
  nlohmann::json tensors = nlohmann::json::object();
  // Paths are safe below the checkpoint's folder.
  std::vector<v1::LocalFile> files;
};

// The text of checkpoint.json; it names its own digest.
std::string CheckpointJson(const CheckpointFile& file);

// Its opposite.
// DATA_LOSS: cut, changed, or not what CheckpointJson writes.
// FAILED_PRECONDITION: of another format version.
absl::StatusOr<CheckpointFile> ParseCheckpointJson(absl::string_view text);

// The info alone, for what else keeps training state (snapshot.h).
std::string SerializeInfo(const CheckpointInfo& info);
// Its opposite. DATA_LOSS and FAILED_PRECONDITION as above.
absl::StatusOr<CheckpointInfo> ParseInfo(absl::string_view text);

}  // namespace ft
