// SPDX-License-Identifier: Apache-2.0
//
// ft-train plan: what a job will need, from its file and a config.json.

#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/exit_code.h"
#include "jobspec/plan_text.h"
#include "train/commands.h"

namespace ft {

int RunPlanCommand(const PlanCommand& command) {
  const absl::StatusOr<JobPlan> plan =
      PlanJobFile(ToRequest(command.words, command.model_root));
  if (!plan.ok()) {
    std::fprintf(stderr, "%s\n", std::string(plan.status().message()).c_str());
    return ExitCodeOf(plan.status().code());
  }
  if (command.output == "json") {
    std::printf("%s\n",
                PlanJson(*plan)
                    .dump(1, ' ', false,
                          nlohmann::ordered_json::error_handler_t::replace)
                    .c_str());
  } else {
    std::fputs(PlanText(*plan).c_str(), stdout);
  }
  return plan->fits == false ? kExitDoesNotFit : kExitOk;
}

}  // namespace ft
