// SPDX-License-Identifier: Apache-2.0
//
// checkpoint.json as a resumed rank reads it. Its own digest would stop nearly
// every input, so each is also read with the digest that it should have had.

#include "train/checkpoint_file.h"

#include "common/digest.h"
#include "common/file.h"
#include "formats/json.h"
#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

void Read(absl::string_view text) {
  const absl::StatusOr<CheckpointFile> file = ParseCheckpointJson(text);
  if (!file.ok()) {
    FT_CHECK(absl::IsDataLoss(file.status()) ||
             absl::IsFailedPrecondition(file.status()));
    return;
  }
  FT_CHECK(file->info.step >= 0 && file->info.ranks > 0);
  for (const v1::LocalFile& entry : file->files) {
    FT_CHECK(IsSafeRelativePath(entry.path()) && entry.bytes() >= 0);
  }
  const std::string written = CheckpointJson(*file);
  const absl::StatusOr<CheckpointFile> again = ParseCheckpointJson(written);
  FT_CHECK(again.ok());
  FT_CHECK(CheckpointJson(*again) == written);
}

FT_FUZZ_TARGET(checkpoint_json) {
  Read(input);
  absl::StatusOr<nlohmann::json> root = ParseJson(input, /*max_depth=*/16);
  if (!root.ok() || !root->is_object()) return;
  root->erase("sha256");
  (*root)["sha256"] = Sha256Hex(root->dump());
  Read(root->dump());
}

}  // namespace
}  // namespace ft
