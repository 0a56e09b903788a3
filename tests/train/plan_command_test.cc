// SPDX-License-Identifier: Apache-2.0
//
// ft-train plan says what ftctl plan says, and ends as it does.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/exit_code.h"
#include "jobspec/plan_text.h"
#include "tests/testing/status_matchers.h"
#include "train/commands.h"

namespace ft {
namespace {

using ::testing::HasSubstr;

class PlanCommandTest : public ::testing::Test {
 protected:
  // Of the 65B example on a card of so much.
  PlanCommand Command(const std::string& device_memory) {
    const std::string source = FT_TEST_SOURCE_DIR;
    return {
        .words = {.job_file = source + "/examples/plan/qlora_65b_48gib.yaml",
                  .model = source + "/tests/golden/plan/llama_65b",
                  .device_memory = device_memory},
        .model_root = "models"};
  }
  int Run(const PlanCommand& command) {
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = RunPlanCommand(command);
    std::fflush(stdout);
    out_ = ::testing::internal::GetCapturedStdout();
    err_ = ::testing::internal::GetCapturedStderr();
    return code;
  }

  std::string out_;
  std::string err_;
};

TEST_F(PlanCommandTest, ItPrintsThePlan) {
  const PlanCommand command = Command("48GiB");
  EXPECT_EQ(Run(command), kExitOk) << err_;
  FT_ASSERT_OK_AND_ASSIGN(
      const JobPlan plan,
      PlanJobFile(ToRequest(command.words, command.model_root)));
  EXPECT_EQ(out_, PlanText(plan));
  EXPECT_THAT(out_, HasSubstr("qlora-65b: fits\n"));
}

TEST_F(PlanCommandTest, WhatDoesNotFitHasItsOwnCode) {
  PlanCommand command = Command("24GiB");
  command.output = "json";
  EXPECT_EQ(Run(command), kExitDoesNotFit) << err_;
  const nlohmann::json plan = nlohmann::json::parse(out_);
  EXPECT_EQ(plan["fits"], false);
  EXPECT_EQ(plan["limits"][0]["available"], int64_t{24} << 30);
}

TEST_F(PlanCommandTest, WhatIsMissingIsTold) {
  PlanCommand command = Command("24GiB");
  command.words.model = "gone";
  EXPECT_EQ(Run(command), 4);
  EXPECT_THAT(err_, HasSubstr("--model gone: there is no such file"));
  EXPECT_EQ(out_, "");
}

}  // namespace
}  // namespace ft
