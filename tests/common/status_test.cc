// SPDX-License-Identifier: Apache-2.0

#include "common/status.h"

#include <cerrno>

#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

using ::ft::testing::Fails;

absl::StatusOr<int> Inner(bool good) {
  if (good) return 7;
  return absl::DataLossError("shard 3: sha256 differs");
}

absl::StatusOr<int> Outer(bool good) {
  FT_ASSIGN_OR_RETURN(const int value, Inner(good), "checkpoint ", 1000);
  return value + 1;
}

TEST(StatusTest, EachCallerAddsOneNounOfContextAndTheCodeStays) {
  EXPECT_EQ(Outer(true).value(), 8);
  EXPECT_THAT(Outer(false), Fails(absl::StatusCode::kDataLoss,
                                  "checkpoint 1000: shard 3: sha256 differs"));
}

TEST(StatusTest, AnnotatingKeepsThePayloads) {
  absl::Status status = absl::AbortedError("x");
  status.SetPayload("a/b", absl::Cord("payload"));
  EXPECT_EQ(Annotate(status, "y").GetPayload("a/b").value(), "payload");
}

TEST(StatusTest, SystemErrorsGetTheCodeThatFits) {
  EXPECT_THAT(ErrnoStatus(ENOSPC, "write f"),
              Fails(absl::StatusCode::kResourceExhausted, "write f: "));
  EXPECT_THAT(ErrnoStatus(ENOENT, "open f"),
              Fails(absl::StatusCode::kNotFound, "open f: "));
}

}  // namespace
}  // namespace ft
