// SPDX-License-Identifier: Apache-2.0

#include "common/failpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>

#include "common/file.h"
#include "tests/testing/failpoint_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using testing::FailpointFile;
using testing::IsOk;
using testing::TestDir;

// Runs `body` in a process of its own; its wait status.
template <typename Body>
int InChild(const Body& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    body();
    _exit(0);
  }
  int status = -1;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

TEST(FailpointTest, ThereAreAtLeastThirtyAndEachHasANameOfItsOwn) {
  std::set<absl::string_view> names;
  for (int i = 0; i < kFailpoints; ++i) {
    const auto point = static_cast<Failpoint>(i);
    const absl::string_view name = FailpointName(point);
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_EQ(FindFailpoint(name), point);
  }
  EXPECT_GE(names.size(), 30);
  EXPECT_EQ(FindFailpoint("nowhere"), std::nullopt);
}

TEST(FailpointTest, WithoutATableNobodyDies) {
  EXPECT_EQ(InChild([] { Pass(Failpoint::kReply); }), 0);
  EXPECT_EQ(FailpointsPath(), "");
}

TEST(FailpointTest, TheNthWhoPassesIsKilledWhicheverProcessItIs) {
  const TestDir dir;
  FailpointFile table(dir / "table");
  table.Arm(Failpoint::kReply, 3);
  const auto pass_twice = [&] {
    if (!OpenFailpoints(table.path()).ok()) _exit(1);
    Pass(Failpoint::kReply);
    Pass(Failpoint::kOrder);
    Pass(Failpoint::kReply);
  };
  EXPECT_EQ(InChild(pass_twice), 0);
  const int status = InChild(pass_twice);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  // Once: the next one lives.
  EXPECT_EQ(InChild(pass_twice), 0);
  EXPECT_EQ(table.passed(Failpoint::kReply), 5);
  EXPECT_EQ(table.killed(Failpoint::kReply), 1);
  EXPECT_EQ(table.passed(Failpoint::kOrder), 2);
}

TEST(FailpointTest, ADisarmedPointKillsNobody) {
  const TestDir dir;
  FailpointFile table(dir / "table");
  table.Arm(Failpoint::kReply);
  table.Disarm(Failpoint::kReply);
  EXPECT_EQ(InChild([&] {
              if (!OpenFailpoints(table.path()).ok()) _exit(1);
              Pass(Failpoint::kReply);
            }),
            0);
}

TEST(FailpointTest, AFileThatOthersMayReadOrThatIsNoTableIsRefused) {
  const TestDir dir;
  {
    FailpointFile table(dir / "shared");
    ASSERT_EQ(chmod(table.path().c_str(), 0640), 0);
    EXPECT_EQ(OpenFailpoints(table.path()).code(),
              absl::StatusCode::kPermissionDenied);
  }
  ASSERT_THAT(WriteFileAtomic(dir / "short", "flpoint1", 0600), IsOk());
  EXPECT_EQ(OpenFailpoints(dir / "short").code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_THAT(WriteFileAtomic(dir / "zeros",
                              std::string(sizeof(FailpointTable), '\0'), 0600),
              IsOk());
  EXPECT_EQ(OpenFailpoints(dir / "zeros").code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenFailpoints(dir / "missing").code(),
            absl::StatusCode::kNotFound);
  ASSERT_EQ(symlink((dir / "zeros").c_str(), (dir / "link").c_str()), 0);
  EXPECT_FALSE(OpenFailpoints(dir / "link").ok());
}

}  // namespace
}  // namespace ft
