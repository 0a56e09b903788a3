// SPDX-License-Identifier: Apache-2.0

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/grpc_status.h"
#include "ctl/command.h"

namespace ft {
namespace {

using ::testing::HasSubstr;

std::string Told(const absl::Status& status, int* code = nullptr) {
  ::testing::internal::CaptureStderr();
  const int given = Fail(status);
  if (code != nullptr) *code = given;
  return ::testing::internal::GetCapturedStderr();
}

TEST(ErrorsTest, TheExitCodesAreFrozen) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), 1);
  EXPECT_EQ(ExitCodeOf(absl::UnknownError("")), 1);
  EXPECT_EQ(ExitCodeOf(absl::ResourceExhaustedError("")), 1);
  EXPECT_EQ(ExitCodeOf(absl::DataLossError("")), 1);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), 3);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), 4);
  EXPECT_EQ(ExitCodeOf(absl::PermissionDeniedError("")), 5);
  EXPECT_EQ(ExitCodeOf(absl::UnauthenticatedError("")), 5);
  EXPECT_EQ(ExitCodeOf(absl::AlreadyExistsError("")), 6);
  EXPECT_EQ(ExitCodeOf(absl::FailedPreconditionError("")), 6);
  EXPECT_EQ(ExitCodeOf(absl::AbortedError("")), 6);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), 7);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), 8);
  // Another body under a used request id: a conflict, whatever its code.
  EXPECT_EQ(ExitCodeOf(ErrorWithReason(absl::StatusCode::kInvalidArgument,
                                       "REQUEST_ID_REUSED", "")),
            6);
}

TEST(ErrorsTest, EveryWrongFieldIsALine) {
  int code = 0;
  EXPECT_EQ(Told(BadRequestError("INVALID_SPEC", "name: is missing",
                                 {{"name", "is missing"}, {"stage", "is odd"}}),
                 &code),
            "name: is missing\nstage: is odd\n");
  EXPECT_EQ(code, 3);
}

TEST(ErrorsTest, WhatIsNotUpIsToldWithTheRemedy) {
  EXPECT_THAT(Told(absl::UnavailableError("connection refused")),
              HasSubstr("connection refused\nIs the service up? Start it with: "
                        "ftctl up\n"));
  EXPECT_EQ(Told(absl::NotFoundError("no job a")), "no job a\n");
}

}  // namespace
}  // namespace ft
