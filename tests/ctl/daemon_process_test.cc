// SPDX-License-Identifier: Apache-2.0
//
// Daemons are found by what they are, not by a number in a file.

#include "ctl/daemon_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::Fails;
using testing::TestDir;

// A "daemon" that hears no SIGTERM and waits for ever.
std::vector<std::string> Stubborn(const std::string& data_dir) {
  return {"/bin/sh", "-c", "echo begun; kill -STOP $$", "--data_dir", data_dir};
}

std::vector<pid_t> Found(const std::string& program,
                         const std::string& data_dir) {
  std::vector<pid_t> pids;
  for (const DaemonProcess& process : FindDaemons({program})) {
    if (process.data_dir == data_dir) pids.push_back(process.pid);
  }
  return pids;
}

TEST(DaemonProcessTest, IsFoundByProgramAndFolderUntilItHasEnded) {
  const TestDir dir;
  // A folder whose name begins the same, and has a space, is another one.
  const std::string own = dir / "data", other = dir / "data 2";
  FT_ASSERT_OK_AND_ASSIGN(const pid_t first,
                          SpawnDaemon(Stubborn(own), dir / "log"));
  FT_ASSERT_OK_AND_ASSIGN(const pid_t second,
                          SpawnDaemon(Stubborn(other), dir / "log"));
  EXPECT_EQ(Found("sh", own), std::vector<pid_t>{first});
  EXPECT_EQ(Found("sh", other), std::vector<pid_t>{second});
  EXPECT_EQ(Found("bash", own), std::vector<pid_t>{});
  EXPECT_TRUE(IsRunning(first));
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (!IsStopped(first) && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_TRUE(IsStopped(first));
  EXPECT_FALSE(IsStopped(getpid()));
  EXPECT_EQ(
      std::filesystem::read_symlink(absl::StrCat("/proc/", first, "/cwd")),
      "/");
  // It leads a session of its own: Ctrl-C here does not reach it.
  EXPECT_EQ(getsid(first), first);

  kill(first, SIGTERM);
  EndProcess(first, absl::ZeroDuration());
  EXPECT_FALSE(IsRunning(first));
  EXPECT_EQ(Found("sh", own), std::vector<pid_t>{});
  EXPECT_TRUE(IsRunning(second));
  EndProcess(second, absl::ZeroDuration());
  EXPECT_FALSE(IsRunning(second));
}

TEST(DaemonProcessTest, WhatItSaysIsAppendedToTheLog) {
  const TestDir dir;
  FT_ASSERT_OK(WriteFileAtomic(dir / "log", "before\n"));
  FT_ASSERT_OK_AND_ASSIGN(
      const pid_t pid,
      SpawnDaemon({"/bin/sh", "-c", "echo out; echo err >&2"}, dir / "log"));
  EndProcess(pid, absl::Seconds(30));
  EXPECT_EQ(ReadFile(dir / "log", 1 << 16).value_or(""), "before\nout\nerr\n");
}

TEST(DaemonProcessTest, AProgramThatCannotStartIsTold) {
  const TestDir dir;
  EXPECT_THAT(
      SpawnDaemon({dir / "gone"}, dir / "log"),
      Fails(absl::StatusCode::kNotFound, "cannot start " + (dir / "gone")));
  FT_ASSERT_OK(WriteFileAtomic(dir / "text", "no program", 0644));
  EXPECT_THAT(SpawnDaemon({dir / "text"}, dir / "log"),
              Fails(absl::StatusCode::kPermissionDenied, "cannot start"));
  EXPECT_THAT(SpawnDaemon({"/bin/sh"}, dir / "no/log"),
              Fails(absl::StatusCode::kNotFound, "no/log"));
}

TEST(DaemonProcessTest, AnEndedChildThatNobodyWaitedForDoesNotRun) {
  const pid_t pid = fork();
  if (pid == 0) _exit(0);
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(kill(pid, 0), 0) << "its number is still taken";
  EXPECT_FALSE(IsRunning(pid));
  waitpid(pid, nullptr, 0);
}

}  // namespace
}  // namespace ft
