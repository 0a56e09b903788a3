// SPDX-License-Identifier: Apache-2.0

#include "common/id.h"

#include <gtest/gtest.h>

namespace ft {
namespace {

TEST(IdTest, JobIdsSortByTimeThenCounter) {
  const absl::Time now = absl::FromUnixMillis(1'800'000'000'000);
  const std::string first = MakeJobId(now, 7);
  EXPECT_LT(first, MakeJobId(now, 8));
  EXPECT_LT(MakeJobId(now, 8), MakeJobId(now + absl::Milliseconds(1), 0));
  EXPECT_EQ(first.size(), 16u);
  EXPECT_TRUE(IsJobId(first)) << first;
}

TEST(IdTest, WhatIsNoJobIdIsSeen) {
  for (const char* text :
       {"", "job-", "job-0000000000ü", "job-000000000000x", "JOB-000000000000",
        "job-00000000000i", "job-../../../.."}) {
    EXPECT_FALSE(IsJobId(text)) << text;
  }
}

TEST(IdTest, LabelsAndRequestIdsAreBounded) {
  EXPECT_TRUE(IsLabel("hotel-bot-2"));
  EXPECT_FALSE(IsLabel("Hotel"));
  EXPECT_FALSE(IsLabel(std::string(64, 'a')));
  EXPECT_TRUE(IsRequestId(MakeRequestId()));
  EXPECT_FALSE(IsRequestId("a b"));
  EXPECT_FALSE(IsRequestId(""));
  EXPECT_FALSE(IsRequestId(std::string(65, 'a')));
}

}  // namespace
}  // namespace ft
