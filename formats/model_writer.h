// SPDX-License-Identifier: Apache-2.0
//
// The weights of a model directory, written tensor by tensor:
// model.safetensors, or several files and their index where one would be too
// large, as transformers does it.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/safetensors.h"

namespace ft {

inline constexpr int64_t kMaxShardBytes = 5'000'000'000;

// Not thread-safe.
class ModelWriter {
 public:
  // Lays out files in the existing folder `dir`. They are filled one after
  // another in the order of `tensors`; none is split. INVALID_ARGUMENT as
  // SafetensorsWriter::Create.
  static absl::StatusOr<ModelWriter> Create(
      const std::string& dir, const std::vector<TensorInfo>& tensors,
      int64_t max_shard_bytes = kMaxShardBytes);

  // Appends the next bytes of tensor `name`; any order of tensors, any pieces.
  // REQUIRES: the tensor was declared, and the piece fits.
  absl::Status Append(absl::string_view name, std::span<const std::byte> bytes);

  // REQUIRES: every tensor is complete.
  absl::Status Finish();

 private:
  ModelWriter() = default;

  std::string dir_;
  int64_t total_bytes_ = 0;
  std::vector<std::string> file_names_;
  std::vector<SafetensorsWriter> files_;
  absl::flat_hash_map<std::string, size_t> file_of_;
};

}  // namespace ft
