// SPDX-License-Identifier: Apache-2.0
//
// Parameters and optimizer state by name and interval, never by rank: what a
// checkpoint of N ranks holds, and what M ranks take from it. No torch.

#pragma once

#include <cstddef>
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
// The same in 8 bits: a code an element, an fp32 scale a block of 256.
inline constexpr const char* kExpAvgQ8 = "exp_avg_q8";
inline constexpr const char* kExpAvgAbsmax = "exp_avg_absmax";
inline constexpr const char* kExpAvgSqQ8 = "exp_avg_sq_q8";
inline constexpr const char* kExpAvgSqAbsmax = "exp_avg_sq_absmax";

// Bytes of an element: 1 of codes, 4 of all else.
int64_t StateElementBytes(absl::string_view kind);

// Elements [start, start + numel()) of what tensor `name` has of a kind.
struct StatePiece {
  std::string name;
  std::string kind;
  int64_t start = 0;
  std::span<const std::byte> bytes;

  int64_t numel() const {
    return static_cast<int64_t>(bytes.size()) / StateElementBytes(kind);
  }
  // "<name>@<start>:<numel>/<kind>", as in a checkpoint's file.
  std::string Key() const;
};

// Reads a key. INVALID_ARGUMENT: it is not of that form. The bytes are left
// empty; `numel` says how many elements there must be.
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

  // Copies elements from `begin` on of a tensor into `out`, all of it.
  // DATA_LOSS: as CheckCover, for what is wanted.
  absl::Status Fill(const std::string& name, const std::string& kind,
                    int64_t begin, std::span<std::byte> out) const;

 private:
  using ByStart = std::multimap<int64_t, std::span<const std::byte>>;

  // Null if there is none.
  const ByStart* Find(const std::string& name, const std::string& kind) const;

  std::map<std::pair<std::string, std::string>, ByStart> pieces_;
};

}  // namespace ft
