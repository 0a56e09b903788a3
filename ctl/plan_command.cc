// SPDX-License-Identifier: Apache-2.0
//
// plan: what a job will need, from its file and a config.json.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/exit_code.h"
#include "ctl/command.h"
#include "ctl/output.h"
#include "ctl/paths.h"
#include "jobspec/plan_options.h"
#include "jobspec/plan_text.h"

namespace ft {
namespace {

int Plan(const GlobalOptions& options, const PlanWords& words) {
  const absl::StatusOr<JobPlan> plan =
      PlanJobFile(ToRequest(words, ModelRootDir()));
  if (!plan.ok()) return Fail(plan.status());
  if (IsMessageOutput(options)) {
    PrintValue(options, PlanJson(*plan));
  } else if (options.output == "name") {
    std::printf("%s\n", plan->job.c_str());
  } else {
    std::fputs(PlanText(*plan).c_str(), stdout);
  }
  return plan->fits == false ? kExitDoesNotFit : 0;
}

}  // namespace

void AddPlanCommand(CLI::App& app, GlobalOptions& options, int& code) {
  static PlanWords words;
  CLI::App* command = app.add_subcommand(
      "plan",
      "Memory and disk a job will need, and what would make it fit\n\n"
      "  ftctl plan job.yaml   on this machine's CPU\n"
      "  ftctl plan job.yaml --device-memory 48GiB\n"
      "  ftctl plan job.yaml --device-memory 24GiB --ranks 2 --model "
      "config.json\n"
      "  ftctl plan job.yaml -o json | jq .proposal.changes");
  command->group("Jobs");
  AddPlanOptions(*command, words);
  command->callback([&] { code = Plan(options, words); });
}

}  // namespace ft
