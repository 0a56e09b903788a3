// SPDX-License-Identifier: Apache-2.0
//
// One rank as its worker sees it: messages, lines, and one ending that says
// all, however the rank behaves. Ranks are shell scripts here.

#include "worker/rank_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/file.h"
#include "common/frame.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace ft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TestDir;

class RankLinkTest : public ::testing::Test {
 protected:
  // Runs a script as rank 1 until it has ended.
  RankEnding Run(const std::string& text,
                 const std::function<void(RankLink&)>& act = nullptr) {
    const std::string program = dir_ / "rank.sh";
    EXPECT_THAT(
        WriteFileAtomic(program, absl::StrCat("#!/bin/sh\n", text, "\n"), 0700),
        testing::IsOk());
    absl::StatusOr<SpawnedRank> process = spawner_.Spawn(program, dir_.path());
    EXPECT_THAT(process, testing::IsOk());
    RankEnding ending;
    absl::Notification over;
    int endings = 0;
    {
      RankLink link(
          1, *std::move(process), log_file_,
          {.on_message =
               [&](int rank, const v1::FromRank& message) {
                 EXPECT_EQ(rank, 1);
                 messages_.push_back(message);
               },
           .on_line = [&](int,
                          const std::string& line) { lines_.push_back(line); },
           .on_full_log = [&] { ++full_logs_; },
           .on_end =
               [&](const RankEnding& end) {
                 ending = end;
                 ++endings;
                 over.Notify();
               }});
      if (act) act(link);
      over.WaitForNotification();
    }
    EXPECT_EQ(endings, 1);
    EXPECT_EQ(ending.rank, 1);
    return ending;
  }
  // A script's words that send the message.
  std::string Sending(const v1::FromRank& message) {
    const std::string file = dir_ / absl::StrCat("frame-", frames_++);
    EXPECT_THAT(WriteFileAtomic(file, EncodeFrame(message.SerializeAsString())),
                testing::IsOk());
    return absl::StrCat("cat '", file, "' >&3\n");
  }

  const TestDir dir_;
  RankSpawner spawner_;
  std::vector<v1::FromRank> messages_;
  std::vector<std::string> lines_;
  std::string log_file_ = dir_ / "rank.log";
  int full_logs_ = 0;
  int frames_ = 0;
};

TEST_F(RankLinkTest, MessagesThenTheEndWithItsLastWords) {
  v1::FromRank ready, exit;
  ready.mutable_ready();
  exit.mutable_exit()->set_code(3);
  exit.mutable_exit()->set_message("rows.jsonl: row 2");
  const RankEnding ending = Run(Sending(ready) + Sending(exit) + "exit 3");
  ASSERT_EQ(messages_.size(), 2u);
  EXPECT_TRUE(messages_[0].has_ready());
  ASSERT_TRUE(ending.last_words.has_value());
  EXPECT_EQ(ending.last_words->message(), "rows.jsonl: row 2");
  EXPECT_EQ(ending.end.exit_code, 3);
  EXPECT_FALSE(ending.is_success());
}

TEST_F(RankLinkTest, LinesGoToTheLogTheCoordinatorAndTheReport) {
  const RankEnding ending = Run("echo one; echo two >&2; printf unended");
  EXPECT_THAT(lines_, ElementsAre("one", "two", "unended"));
  EXPECT_THAT(ending.log_tail, ElementsAre("one", "two", "unended"));
  EXPECT_EQ(ReadFile(dir_ / "rank.log", 1 << 16).value_or(""),
            "one\ntwo\nunended\n");
}

TEST_F(RankLinkTest, ALogWithoutRoomIsToldAndLosesNoLineToTheCoordinator) {
  log_file_ = "/dev/full";
  const RankEnding ending = Run("echo one; echo two");
  EXPECT_THAT(lines_, ElementsAre("one", "two"));
  EXPECT_EQ(full_logs_, 2);
}

TEST_F(RankLinkTest, AMillionLinesAndOneThatNeverEndsFillNoMemory) {
  const RankEnding ending =
      Run("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; "
          "head -c 200000 /dev/zero | tr '\\0' x");
  EXPECT_EQ(ending.log_tail.size(), 100u);
  for (const std::string& line : lines_) EXPECT_LE(line.size(), 16u << 10);
  EXPECT_EQ(lines_[299], "line 299");
  EXPECT_THAT(lines_[300], HasSubstr("xxx..."));
}

TEST_F(RankLinkTest, AMessageReachesTheRank) {
  v1::ToRank begin;
  begin.mutable_begin();
  const std::string bytes = begin.SerializeAsString();
  const RankEnding ending =
      Run(absl::StrCat("head -c ", bytes.size() + 1, " <&3 | od -An -tx1"),
          [&](RankLink& link) { link.Send(begin); });
  EXPECT_EQ(ending.end.exit_code, 0);
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_EQ(lines_[0].size(), 3 * (bytes.size() + 1));
}

TEST_F(RankLinkTest, ARankThatIsKilledEndsBySignal) {
  const RankEnding ending =
      Run("kill -STOP $$", [](RankLink& link) { link.Kill(); });
  EXPECT_EQ(ending.end.signal, SIGKILL);
  EXPECT_FALSE(ending.last_words.has_value());
}

TEST_F(RankLinkTest, ARankThatClosesTheLinkAndStaysIsKilled) {
  const RankEnding ending = Run("exec 3>&-; kill -STOP $$");
  EXPECT_EQ(ending.end.signal, SIGKILL);
}

TEST_F(RankLinkTest, GarbageOnTheLinkEndsTheRankAtOnce) {
  // A frame of 4 GiB, and one that is no message.
  for (const char* garbage :
       {"printf '\\377\\377\\377\\377\\017'", "printf '\\002\\377\\377'"}) {
    const RankEnding ending = Run(absl::StrCat(garbage, " >&3; kill -STOP $$"));
    EXPECT_EQ(ending.end.signal, SIGKILL) << garbage;
    EXPECT_TRUE(messages_.empty());
  }
}

}  // namespace
}  // namespace ft
