// SPDX-License-Identifier: Apache-2.0
//
// Every schedule equals transformers.get_scheduler
// (tests/golden/schedules.json, made by tests/golden/make).

#include "train/learning_rate.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace ft {
namespace {

nlohmann::json Golden() {
  std::ifstream file(FT_TEST_SOURCE_DIR "/tests/golden/schedules.json");
  return nlohmann::json::parse(file);
}

void ExpectEqualsGolden(ScheduleKind kind, const std::string& name) {
  const nlohmann::json golden = Golden();
  const LearningRateSchedule schedule{.kind = kind,
                                      .peak = golden["lr"],
                                      .warmup_steps = golden["warmup"],
                                      .total_steps = golden["steps"]};
  const nlohmann::json expected = golden["schedules"][name]["lr"];
  ASSERT_EQ(expected.size(), 50u);
  for (size_t step = 0; step < expected.size(); ++step) {
    const double want = expected[step];
    EXPECT_NEAR(schedule.At(step), want, 1e-9 * want + 1e-18)
        << name << " step " << step;
  }
}

TEST(LearningRateTest, LinearEqualsTheReference) {
  ExpectEqualsGolden(ScheduleKind::kLinear, "linear");
}

TEST(LearningRateTest, CosineEqualsTheReference) {
  ExpectEqualsGolden(ScheduleKind::kCosine, "cosine");
}

TEST(LearningRateTest, ConstantWithWarmupEqualsTheReference) {
  ExpectEqualsGolden(ScheduleKind::kConstant, "constant_with_warmup");
}

TEST(LearningRateTest, WarmupIsARatioRoundedUp) {
  EXPECT_EQ(WarmupSteps(0.05, 40), 2);
  EXPECT_EQ(WarmupSteps(0.05, 41), 3);
  EXPECT_EQ(WarmupSteps(0.1, 30), 3);
  EXPECT_EQ(WarmupSteps(0, 40), 0);
}

}  // namespace
}  // namespace ft
