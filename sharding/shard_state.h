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

// Reads a key. INVALID_ARGUMENT: it is not of that form. The values are left
// empty; `numel` says how many there must be.
absl::StatusOr<StatePiece> ParseStateKey(absl::string_view key, int64_t& numel);

// All pieces of a checkpoint. The spans must outlive it. Not thread-safe.
class SavedPieces {
 public:
  void Add(const StatePiece& piece);

  // The tensors that have pieces, sorted.
  std::vector<std::string> Names() const;

  // Whether the pieces are elements [0, numel) of the tensor, each once.
  // DATA_LOSS: some are missing, two pieces overlap, or there are more; the
  // message names them.
  absl::Status CheckCover(const std::string& name, const std::string& kind,
                          int64_t numel) const;

  // Copies elements [begin, begin + out.size()) of a tensor into `out`.
  // DATA_LOSS: as CheckCover, for what is wanted.
  absl::Status Fill(const std::string& name, const std::string& kind,
                    int64_t begin, std::span<float> out) const;

 private:
  using ByStart = std::multimap<int64_t, std::span<const float>>;

  // Null if there is none.
  const ByStart* Find(const std::string& name, const std::string& kind) const;

  std::map<std::pair<std::string, std::string>, ByStart> pieces_;
};

}  // namespace ft
