// SPDX-License-Identifier: Apache-2.0

#include "collective/collective.h"

#include <vector>

#include "collective/tree.h"
#include "common/check.h"
#include "common/status.h"

namespace ft {

absl::Status Collective::ReduceScatter(std::span<float> out,
                                       std::span<const float> in, Order) {
  const auto ranks = static_cast<size_t>(size());
  FT_CHECK(in.size() == ranks * out.size());
  if (pieces_.size() < in.size()) pieces_.resize(in.size());
  const std::span<float> pieces = std::span(pieces_).first(in.size());
  FT_RETURN_IF_ERROR(
      AllToAll(std::as_writable_bytes(pieces), std::as_bytes(in)));
  std::vector<const float*> parts;
  for (size_t r = 0; r < ranks; ++r) {
    parts.push_back(pieces.data() + r * out.size());
  }
  TreeSum(parts, out);
  return absl::OkStatus();
}

absl::Status Collective::AllReduce(std::span<double> values) {
  const auto ranks = static_cast<size_t>(size());
  std::vector<double> all(ranks * values.size());
  FT_RETURN_IF_ERROR(AllGather(std::as_writable_bytes(std::span(all)),
                               std::as_bytes(std::span<const double>(values))));
  std::vector<const double*> parts;
  for (size_t r = 0; r < ranks; ++r) {
    parts.push_back(all.data() + r * values.size());
  }
  TreeSum(parts, values);
  return absl::OkStatus();
}

}  // namespace ft
