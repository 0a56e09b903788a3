// SPDX-License-Identifier: Apache-2.0
//
// Rank processes that are shell scripts: what they inherit, and that nothing of
// them stays.

#include "worker/rank_process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::HasSubstr;
using testing::TestDir;

class RankProcessTest : public ::testing::Test {
 protected:
  // A program of this text.
  std::string Program(const std::string& text) {
    const std::string path = dir_ / "rank.sh";
    EXPECT_THAT(
        WriteFileAtomic(path, absl::StrCat("#!/bin/sh\n", text, "\n"), 0700),
        testing::IsOk());
    return path;
  }
  SpawnedRank Spawn(const std::string& text) {
    absl::StatusOr<SpawnedRank> rank =
        spawner_.Spawn(Program(text), dir_ / "space d");
    EXPECT_THAT(rank, testing::IsOk());
    return *std::move(rank);
  }
  // Until the end of what it prints.
  static std::string Output(const SpawnedRank& rank) {
    std::string all;
    char buffer[4096];
    while (true) {
      const ssize_t got = read(rank.output.get(), buffer, sizeof(buffer));
      if (got <= 0) return all;
      all.append(buffer, static_cast<size_t>(got));
    }
  }
  // The first line that it prints.
  static std::string Line(const SpawnedRank& rank) {
    std::string line;
    char c;
    while (read(rank.output.get(), &c, 1) == 1 && c != '\n') line += c;
    return line;
  }

  const TestDir dir_;
  RankSpawner spawner_;
};

TEST_F(RankProcessTest, GetsItsArgumentsOneLinkAndNoOtherDescriptor) {
  const UniqueFd secret(open("/dev/null", O_RDONLY));  // Without O_CLOEXEC.
  const SpawnedRank rank =
      Spawn("echo \"$@\"; ls /proc/self/fd; echo policy $OMP_WAIT_POLICY >&2");
  const std::string output = Output(rank);
  EXPECT_THAT(output,
              HasSubstr(absl::StrCat("rank --workspace ", dir_ / "space d",
                                     " --link_fd 3\n")));
  // 4 is the folder that ls itself reads.
  EXPECT_THAT(output, HasSubstr("\n0\n1\n2\n3\n4\n"));
  EXPECT_THAT(output, HasSubstr("policy passive"));
  EXPECT_EQ(WaitForRank(rank.pid).exit_code, 0);
}

TEST_F(RankProcessTest, TheLinkCarriesBothWays) {
  const SpawnedRank rank = Spawn("read word <&3; echo got $word >&3");
  ASSERT_EQ(write(rank.link.get(), "hello\n", 6), 6);
  char buffer[64] = "";
  EXPECT_EQ(read(rank.link.get(), buffer, sizeof(buffer)), 10);
  EXPECT_STREQ(buffer, "got hello\n");
  // Its end is the end of the link.
  EXPECT_EQ(read(rank.link.get(), buffer, sizeof(buffer)), 0);
  WaitForRank(rank.pid);
}

TEST_F(RankProcessTest, ExitCodeAndSignalAreTold) {
  EXPECT_EQ(WaitForRank(Spawn("exit 9").pid).exit_code, 9);
  const RankEnd end = WaitForRank(Spawn("kill -SEGV $$").pid);
  EXPECT_EQ(end.signal, SIGSEGV);
  // One that was stopped cannot end by itself, but it can be killed.
  const SpawnedRank stopped = Spawn("kill -STOP $$");
  KillRank(stopped.pid);
  EXPECT_EQ(WaitForRank(stopped.pid).signal, SIGKILL);
}

TEST_F(RankProcessTest, AProgramThatIsNotThereExits127) {
  absl::StatusOr<SpawnedRank> rank = spawner_.Spawn(dir_ / "gone", dir_.path());
  FT_ASSERT_OK(rank);
  EXPECT_EQ(WaitForRank(rank->pid).exit_code, 127);
}

TEST_F(RankProcessTest, WhatItStartedGoesWithIt) {
  // The child holds our end of the output open while it lives.
  for (const bool by_itself : {true, false}) {
    const SpawnedRank rank =
        Spawn(absl::StrCat("sh -c 'kill -STOP $$' & echo $!; ",
                           by_itself ? "exit 0" : "kill -STOP $$"));
    pid_t child = 0;
    ASSERT_TRUE(absl::SimpleAtoi(Line(rank), &child));
    if (!by_itself) KillRank(rank.pid);
    WaitForRank(rank.pid);
    EXPECT_EQ(Output(rank), "") << "the child lives";
  }
}

TEST_F(RankProcessTest, DiesWithTheDaemonWhateverEndsIt) {
  // The rank alone holds the writing end of the fifo.
  const std::string program = Program(
      absl::StrCat("exec 5>", dir_ / "fifo", "; echo begun; kill -STOP $$"));
  ASSERT_EQ(mkfifo((dir_ / "fifo").c_str(), 0600), 0);
  const pid_t daemon = fork();
  if (daemon == 0) {
    RankSpawner spawner;
    absl::StatusOr<SpawnedRank> rank = spawner.Spawn(program, dir_.path());
    if (!rank.ok()) _exit(1);
    while (true) pause();
  }
  // Opens when the rank has opened its end.
  const UniqueFd fifo(open((dir_ / "fifo").c_str(), O_RDONLY));
  ASSERT_TRUE(fifo.is_open());
  ASSERT_EQ(kill(daemon, SIGKILL), 0);
  waitpid(daemon, nullptr, 0);
  char c;
  EXPECT_EQ(read(fifo.get(), &c, 1), 0) << "the rank lives on";
}

}  // namespace
}  // namespace ft
