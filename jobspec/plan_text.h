// SPDX-License-Identifier: Apache-2.0
//
// A plan as people and as programs read it.

#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "jobspec/plan_job.h"

namespace ft {

// Lines, the verdict first; amounts in GiB.
std::string PlanText(const JobPlan& plan);

// One object; amounts in whole bytes. docs/ftctl.md lists its keys.
nlohmann::ordered_json PlanJson(const JobPlan& plan);

}  // namespace ft
