// SPDX-License-Identifier: Apache-2.0
//
// What a stranger sends to a gRPC listener first. However it is cut the same is
// read, what is let through is what came less one acknowledgement, and it holds
// a bounded number of bytes. The first byte says how it is cut.

#include "coordinator/http2_opening.h"

#include "tests/fuzz/fuzz_target.h"

namespace ft {
namespace {

struct Outcome {
  absl::StatusCode code = absl::StatusCode::kOk;
  bool has_call = false;
  bool is_acknowledged = false;
  std::optional<std::string> authorization;
  std::string bytes;

  bool operator==(const Outcome&) const = default;
};

Outcome Read(absl::string_view input, size_t piece) {
  Http2Opening opening;
  Outcome outcome;
  while (!input.empty() && outcome.code == absl::StatusCode::kOk) {
    const absl::string_view next = input.substr(0, piece);
    outcome.code = opening.Feed(next).code();
    input.remove_prefix(next.size());
  }
  outcome.has_call = opening.has_call();
  outcome.authorization = opening.authorization();
  outcome.is_acknowledged = opening.is_acknowledged();
  outcome.bytes = opening.TakeBytes();
  return outcome;
}

FT_FUZZ_TARGET(http2_opening) {
  if (input.empty()) return;
  const size_t piece = 1 + static_cast<unsigned char>(input[0]);
  input.remove_prefix(1);
  const Outcome whole = Read(input, input.size());
  if (whole.code == absl::StatusCode::kOk) {
    FT_CHECK(whole.bytes.size() ==
             input.size() - (whole.is_acknowledged ? 9 : 0));
    FT_CHECK(Read(input, piece) == whole);
  } else {
    // Cut in pieces, what came before the fault may have been read.
    FT_CHECK(Read(input, piece).code != absl::StatusCode::kOk);
  }
}

}  // namespace
}  // namespace ft
