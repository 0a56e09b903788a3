// SPDX-License-Identifier: Apache-2.0
//
// Why a rank ended: signal, exit code, the kernel's memory events, last words,
// last lines, the stack of a crash.

#include "worker/exit_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "tests/testing/temp_dir.h"
#include "worker/memory_events.h"

namespace ft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TestDir;

RankEnding Signalled(int signal) {
  RankEnding ending{.rank = 2};
  ending.end.signal = signal;
  return ending;
}

TEST(CrashReportTest, ACrashHasItsSignalItsLastLinesAndItsStack) {
  RankEnding ending = Signalled(SIGSEGV);
  ending.log_tail = {"step 3",
                     "*** SIGSEGV received at time=1700000000 on cpu 1 ***",
                     "PC: @     0x5591 (unknown) ft::Trainer::Step()",
                     "    @     0x7f01 64 main", "a line of another thread"};
  const v1::AttemptEnded report = ReportOf(ending);
  EXPECT_EQ(report.cause(), v1::ATTEMPT_CAUSE_RANK_SIGNAL);
  EXPECT_EQ(report.signal(), SIGSEGV);
  EXPECT_EQ(report.rank(), 2);
  EXPECT_THAT(report.message(), HasSubstr("rank 2 was ended by signal 11"));
  EXPECT_THAT(report.stack(),
              ElementsAre("PC: @     0x5591 (unknown) ft::Trainer::Step()",
                          "@     0x7f01 64 main"));
  EXPECT_EQ(report.log_tail_size(), 5);
}

TEST(CrashReportTest, ARankThatTheKernelKilledForMemoryIsOomHost) {
  RankEnding ending = Signalled(SIGKILL);
  EXPECT_EQ(ReportOf(ending).cause(), v1::ATTEMPT_CAUSE_RANK_SIGNAL);
  ending.oom_kills = 1;
  const v1::AttemptEnded report = ReportOf(ending);
  EXPECT_EQ(report.cause(), v1::ATTEMPT_CAUSE_OOM_HOST);
  EXPECT_EQ(report.oom_kills(), 1);
  EXPECT_THAT(report.message(), HasSubstr("memory"));
}

TEST(CrashReportTest, ARankThatWeKilledIsNoOom) {
  RankEnding ending = Signalled(SIGKILL);
  ending.oom_kills = 1;
  ending.was_killed = true;
  EXPECT_EQ(ReportOf(ending).cause(), v1::ATTEMPT_CAUSE_RANK_SIGNAL);
}

TEST(CrashReportTest, TheLastLinesStayBelow16KiB) {
  RankEnding ending = Signalled(SIGABRT);
  for (int i = 0; i < 100; ++i) {
    ending.log_tail.push_back(absl::StrCat(i, std::string(1000, 'x')));
  }
  const v1::AttemptEnded report = ReportOf(ending);
  EXPECT_EQ(report.log_tail_size(), 16);
  EXPECT_EQ(report.log_tail(15).substr(0, 2), "99");
}

TEST(CrashReportTest, ARankThatSaidNothingSaysSo) {
  RankEnding ending{.rank = 1};
  ending.end.exit_code = 3;
  const v1::AttemptEnded report = ReportOf(ending);
  EXPECT_EQ(report.cause(), v1::ATTEMPT_CAUSE_RANK_EXIT);
  EXPECT_EQ(report.exit_code(), 3);
  EXPECT_EQ(report.message(), "rank 1 exited with 3 and said nothing");
}

// --- Memory events -----------------------------------------------------------

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

class MemoryEventsTest : public ::testing::Test {
 protected:
  void Write(int kills) {
    ASSERT_TRUE(WriteFileAtomic(dir_ / "memory.events",
                                absl::StrCat("low 0\noom 7\noom_kill ", kills,
                                             "\noom_group_kill 0\n"))
                    .ok());
  }
  TestDir dir_;
};

TEST_F(MemoryEventsTest, AKillIsOneRanks) {
  Write(4);
  MemoryEvents events(dir_ / "memory.events");
  EXPECT_EQ(events.Take(kNow), 0);
  Write(6);
  EXPECT_EQ(events.Take(kNow), 2);
  EXPECT_EQ(events.Take(kNow), 1);
  EXPECT_EQ(events.Take(kNow), 0);
}

TEST_F(MemoryEventsTest, AnOldKillWasSomebodyElses) {
  Write(0);
  MemoryEvents events(dir_ / "memory.events");
  Write(1);
  events.Look(kNow);
  EXPECT_EQ(events.Take(kNow + absl::Seconds(11)), 0);
}

TEST_F(MemoryEventsTest, WhatCannotBeReadKilledNobody) {
  MemoryEvents events(dir_ / "none");
  EXPECT_EQ(events.Take(kNow), 0);
  EXPECT_EQ(MemoryEvents("").Take(kNow), 0);
}

TEST_F(MemoryEventsTest, TheFileIsOfTheCgroupOfTheProcess) {
  ASSERT_TRUE(MakeDirs(dir_ / "jobs/w-1", 0700).ok());
  ASSERT_TRUE(MakeDirs(dir_ / "memory/w-1", 0700).ok());
  const std::string mount = dir_.path();
  EXPECT_EQ(FindMemoryEvents("0::/jobs/w-1\n", mount), "");
  const std::string v1_file = dir_ / "memory/w-1/memory.oom_control";
  ASSERT_TRUE(WriteFileAtomic(v1_file, "oom_kill 0\n").ok());
  EXPECT_EQ(FindMemoryEvents("4:memory:/w-1\n0::/\n", mount), v1_file);
  const std::string v2_file = dir_ / "jobs/w-1/memory.events";
  ASSERT_TRUE(WriteFileAtomic(v2_file, "oom_kill 0\n").ok());
  EXPECT_EQ(FindMemoryEvents("0::/jobs/w-1\n", mount), v2_file);
}

}  // namespace
}  // namespace ft
