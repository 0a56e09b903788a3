// SPDX-License-Identifier: Apache-2.0

#include "common/grpc_status.h"

#include <grpcpp/support/status.h>

#include "tests/testing/status_matchers.h"

namespace ft {
namespace {

TEST(GrpcStatusTest, CodeMessageAndTypedDetailsCrossTheWire) {
  const absl::Status sent = BadRequestError(
      "INVALID_SPEC", "2 errors",
      {{"adaptation.lora.rank", "0 is not in [1, 1024]"}, {"name", "missing"}});
  const absl::Status received = FromGrpcStatus(ToGrpcStatus(sent));
  EXPECT_EQ(received.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(received.message(), "2 errors");
  EXPECT_EQ(ReasonOf(received), "INVALID_SPEC");
  ASSERT_EQ(FieldErrorsOf(received).size(), 2u);
  EXPECT_EQ(FieldErrorsOf(received)[0].field, "adaptation.lora.rank");
}

TEST(GrpcStatusTest, MetadataOfAReasonCrossesToo) {
  const absl::Status received = FromGrpcStatus(ToGrpcStatus(ErrorWithReason(
      absl::StatusCode::kOutOfRange, "WRONG_OFFSET", "x", {{"offset", "7"}})));
  EXPECT_EQ(ReasonMetadataOf(received)["offset"], "7");
}

TEST(GrpcStatusTest, OkStaysOkAndPlainErrorsHaveNoReason) {
  EXPECT_TRUE(FromGrpcStatus(ToGrpcStatus(absl::OkStatus())).ok());
  EXPECT_EQ(ReasonOf(FromGrpcStatus(ToGrpcStatus(absl::AbortedError("x")))),
            "");
}

}  // namespace
}  // namespace ft
