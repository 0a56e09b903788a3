// SPDX-License-Identifier: Apache-2.0
//
// Parameters and optimizer state by name and interval, never by rank: what a
// checkpoint of N ranks holds, and what M ranks take from it. No torch.

#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ft {

inline constexpr const char* kMaster = "master";
inline constexpr const char* kExpAvg = "exp_avg";
inline constexpr const char* kExpAvgSq = "exp_avg_sq";

// Elements [start, start + values.size()) of tensor `name`.
struct StatePiece {
  std::string name;
  std::string kind;
  int64_t start = 0;
  std::span<const float> values;

  // "<name>@<start>:<numel>/<kind>", as in a checkpoint's file.
  std::string Key() const;
};

// INVALID_ARGUMENT: not of that form. The values are left empty; `numel` says
// how many there must be.
absl::StatusOr<StatePiece> ParseStateKey(absl::string_view key, int64_t& numel);

// All pieces of a checkpoint.
class SavedPieces {
 public:
  void Add(const StatePiece& piece);

  // Copies elements [begin, begin + out.size()) of a tensor into `out`.
  // DATA_LOSS: some are missing, or two pieces overlap; the message names them.
  absl::Status Fill(const std::string& name, const std::string& kind,
                    int64_t begin, std::span<float> out) const;

 private:
  // By (name, kind): pieces by start.
  std::map<std::pair<std::string, std::string>,
           std::multimap<int64_t, std::span<const float>>>
      pieces_;
};

}  // namespace ft
