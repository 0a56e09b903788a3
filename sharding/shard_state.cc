// SPDX-License-Identifier: Apache-2.0

#include "sharding/shard_state.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace ft {

std::string StatePiece::Key() const {
  return absl::StrCat(name, "@", start, ":", values.size(), "/", kind);
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
      piece.start < 0 || numel < 0) {
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
  if (piece.values.empty()) return;
  pieces_[{piece.name, piece.kind}].emplace(piece.start, piece.values);
}

absl::Status SavedPieces::Fill(const std::string& name, const std::string& kind,
                               int64_t begin, std::span<float> out) const {
  const int64_t end = begin + static_cast<int64_t>(out.size());
  const auto found = pieces_.find({name, kind});
  int64_t filled = begin;
  int64_t last_end = 0;
  if (found != pieces_.end()) {
    for (const auto& [start, values] : found->second) {
      const int64_t stop = start + static_cast<int64_t>(values.size());
      if (start < last_end) {
        return absl::DataLossError(absl::StrCat(
            name, " (", kind, "): two pieces hold element ", start));
      }
      last_end = stop;
      if (stop <= filled || start >= end) continue;
      if (start > filled) break;  // A hole.
      const int64_t take = std::min(stop, end) - filled;
      std::copy_n(values.data() + (filled - start), take,
                  out.data() + (filled - begin));
      filled += take;
    }
  }
  if (filled < end) {
    return absl::DataLossError(
        absl::StrCat(name, " (", kind, "): elements ", filled, " to ", end - 1,
                     " are in no piece of the checkpoint"));
  }
  return absl::OkStatus();
}

}  // namespace ft
