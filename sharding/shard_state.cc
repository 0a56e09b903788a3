// SPDX-License-Identifier: Apache-2.0

#include "sharding/shard_state.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace ft {
namespace {

// No tensor is larger, and sums of two stay below 2^63.
constexpr int64_t kMaxElements = int64_t{1} << 56;

absl::Status Missing(const std::string& name, const std::string& kind,
                     int64_t begin, int64_t end) {
  return absl::DataLossError(
      absl::StrCat(name, " (", kind, "): elements ", begin, " to ", end - 1,
                   " are in no piece of the checkpoint"));
}

absl::Status Doubled(const std::string& name, const std::string& kind,
                     int64_t element) {
  return absl::DataLossError(
      absl::StrCat(name, " (", kind, "): two pieces hold element ", element));
}

}  // namespace

int64_t StateElementBytes(absl::string_view kind) {
  return kind == kExpAvgQ8 || kind == kExpAvgSqQ8 ? 1 : 4;
}

std::string StatePiece::Key() const {
  return absl::StrCat(name, "@", start, ":", numel(), "/", kind);
}

absl::StatusOr<StatePiece> ParseStateKey(absl::string_view key,
                                         int64_t& numel) {
  const size_t at = key.rfind('@');
  const size_t colon = key.find(':', at == absl::string_view::npos ? 0 : at);
  const size_t slash =
      key.find('/', colon == absl::string_view::npos ? 0 : colon);
  StatePiece piece;
  if (at == absl::string_view::npos || colon == absl::string_view::npos ||
      slash == absl::string_view::npos ||
      !absl::SimpleAtoi(key.substr(at + 1, colon - at - 1), &piece.start) ||
      !absl::SimpleAtoi(key.substr(colon + 1, slash - colon - 1), &numel) ||
      piece.start < 0 || numel < 0 || piece.start > kMaxElements ||
      numel > kMaxElements) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key,
                     "\" is no key of a shard; expected "
                     "<name>@<start>:<numel>/<kind>"));
  }
  piece.name = std::string(key.substr(0, at));
  piece.kind = std::string(key.substr(slash + 1));
  return piece;
}

void SavedPieces::Add(const StatePiece& piece) {
  if (piece.bytes.empty()) return;
  pieces_[{piece.name, piece.kind}].emplace(piece.start, piece.bytes);
}

std::vector<std::string> SavedPieces::Names() const {
  std::vector<std::string> names;
  for (const auto& [key, pieces] : pieces_) {
    if (names.empty() || names.back() != key.first) names.push_back(key.first);
  }
  return names;
}

const SavedPieces::ByStart* SavedPieces::Find(const std::string& name,
                                              const std::string& kind) const {
  const auto found = pieces_.find({name, kind});
  return found == pieces_.end() ? nullptr : &found->second;
}

absl::Status SavedPieces::CheckCover(const std::string& name,
                                     const std::string& kind,
                                     int64_t numel) const {
  const int64_t element = StateElementBytes(kind);
  int64_t covered = 0;
  if (const ByStart* pieces = Find(name, kind)) {
    for (const auto& [start, bytes] : *pieces) {
      if (start < covered) return Doubled(name, kind, start);
      if (start > covered) return Missing(name, kind, covered, start);
      covered += static_cast<int64_t>(bytes.size()) / element;
    }
  }
  if (covered < numel) return Missing(name, kind, covered, numel);
  if (covered > numel) {
    return absl::DataLossError(absl::StrCat(name, " (", kind,
                                            "): the checkpoint has ", covered,
                                            " elements, the model ", numel));
  }
  return absl::OkStatus();
}

absl::Status SavedPieces::Fill(const std::string& name, const std::string& kind,
                               int64_t begin, std::span<std::byte> out) const {
  const int64_t element = StateElementBytes(kind);
  const int64_t end = begin + static_cast<int64_t>(out.size()) / element;
  int64_t filled = begin;
  int64_t last_end = 0;
  if (const ByStart* pieces = Find(name, kind)) {
    for (const auto& [start, bytes] : *pieces) {
      if (start < last_end) return Doubled(name, kind, start);
      last_end = start + static_cast<int64_t>(bytes.size()) / element;
      if (last_end <= filled || start >= end) continue;
      if (start > filled) break;  // A hole.
      const int64_t take = std::min(last_end, end) - filled;
      std::ranges::copy(
          bytes.subspan((filled - start) * element, take * element),
          out.subspan((filled - begin) * element).begin());
      filled += take;
    }
  }
  if (filled < end) return Missing(name, kind, filled, end);
  return absl::OkStatus();
}

}  // namespace ft
