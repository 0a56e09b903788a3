// SPDX-License-Identifier: Apache-2.0

#include "common/log.h"

#include <gtest/gtest.h>

namespace ft {
namespace {

TEST(LogTest, OneEventIsOneLine) {
  EXPECT_EQ(
      LogText(LogSeverity::kWarn, absl::FromUnixMillis(1'768'383'850'003),
              "coordinator", "attempt ended",
              {{"job", "job-7q3k"}, {"epoch", 42}, {"why", "a \"b\"\nc"}}),
      "W 2026-01-14T09:44:10.003Z coordinator attempt ended job=job-7q3k "
      "epoch=42 why=\"a \\\"b\\\"\\nc\"");
}

TEST(LogTest, ASecretIsNeverPrinted) {
  const std::string line =
      LogText(LogSeverity::kInfo, absl::UnixEpoch(), "worker", "attached",
              {{"token", Secret("ft_0123")}});
  EXPECT_NE(line.find("token=***"), std::string::npos);
  EXPECT_EQ(line.find("0123"), std::string::npos);
}

}  // namespace
}  // namespace ft
