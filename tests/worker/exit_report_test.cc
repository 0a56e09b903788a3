// SPDX-License-Identifier: Apache-2.0
//
// Why a rank ended, as the user and the retry policy are told.

#include "worker/exit_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "absl/status/status.h"

namespace ft {
namespace {

RankEnding Ended(int exit_code, int signal = 0) {
  RankEnding ending{.rank = 3};
  ending.end.exit_code = exit_code;
  ending.end.signal = signal;
  return ending;
}

RankEnding Said(absl::StatusCode code, const std::string& message,
                int exit_code = 1) {
  RankEnding ending = Ended(exit_code);
  ending.last_words.emplace();
  ending.last_words->set_code(static_cast<int32_t>(code));
  ending.last_words->set_message(message);
  ending.last_words->set_last_step(7);
  return ending;
}

TEST(ExitReportTest, OnlyLastWordsMakeASuccess) {
  EXPECT_TRUE(Said(absl::StatusCode::kOk, "", 0).is_success());
  EXPECT_FALSE(Ended(0).is_success()) << "it never said that it was done";
  EXPECT_FALSE(Said(absl::StatusCode::kOk, "", 1).is_success());
  EXPECT_FALSE(Said(absl::StatusCode::kAborted, "", 0).is_success());
  RankEnding killed = Said(absl::StatusCode::kOk, "", 0);
  killed.end.signal = SIGKILL;
  EXPECT_FALSE(killed.is_success());
}

TEST(ExitReportTest, ASignalIsNamed) {
  const v1::AttemptEnded report = ReportOf(Ended(0, SIGKILL));
  EXPECT_EQ(report.cause(), v1::ATTEMPT_CAUSE_RANK_SIGNAL);
  EXPECT_EQ(report.rank(), 3);
  EXPECT_EQ(report.signal(), SIGKILL);
  EXPECT_EQ(report.message(), "rank 3 was ended by signal 9 (Killed)");
  // What it said before does not hide how it ended.
  RankEnding both = Said(absl::StatusCode::kInvalidArgument, "bad rows");
  both.end.signal = SIGSEGV;
  EXPECT_EQ(ReportOf(both).cause(), v1::ATTEMPT_CAUSE_RANK_SIGNAL);
}

TEST(ExitReportTest, LastWordsReachTheUserWithCodeAndStep) {
  const v1::AttemptEnded report =
      ReportOf(Said(absl::StatusCode::kUnavailable, "peer 1 is gone"));
  EXPECT_EQ(report.cause(), v1::ATTEMPT_CAUSE_RANK_EXIT);
  EXPECT_EQ(report.message(), "rank 3: peer 1 is gone");
  EXPECT_EQ(report.status_code(),
            static_cast<int>(absl::StatusCode::kUnavailable));
  EXPECT_EQ(report.last_step(), 7);
  EXPECT_EQ(report.exit_code(), 1);
}

TEST(ExitReportTest, SilenceIsSaid) {
  const v1::AttemptEnded report = ReportOf(Ended(127));
  EXPECT_EQ(report.cause(), v1::ATTEMPT_CAUSE_RANK_EXIT);
  EXPECT_EQ(report.message(), "rank 3 exited with 127 and said nothing");
  EXPECT_EQ(report.status_code(), 0);
}

TEST(ExitReportTest, WhatTheUserMustEditIsNotTriedAgain) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kUnimplemented}) {
    EXPECT_EQ(ReportOf(Said(code, "row 2")).cause(),
              v1::ATTEMPT_CAUSE_INVALID_ARGUMENT);
  }
  RankEnding ending = Said(absl::StatusCode::kInternal, "loss is nan");
  ending.last_words->set_non_finite(true);
  EXPECT_EQ(ReportOf(ending).cause(), v1::ATTEMPT_CAUSE_NON_FINITE);
  ending = Said(absl::StatusCode::kResourceExhausted, "");
  ending.last_words->set_out_of_memory(true);
  EXPECT_EQ(ReportOf(ending).cause(), v1::ATTEMPT_CAUSE_OOM_HOST);
}

TEST(ExitReportTest, TheEndOfItsLogGoesWithIt) {
  RankEnding ending = Ended(1);
  ending.log_tail = {"a", "b"};
  EXPECT_THAT(ReportOf(ending).log_tail(), ::testing::ElementsAre("a", "b"));
}

}  // namespace
}  // namespace ft
