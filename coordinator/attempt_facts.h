// SPDX-License-Identifier: Apache-2.0
//
// An attempt in words: what its events say, and what is kept of its end.

#pragma once

#include <map>
#include <string>

#include "ft/v1/jobs.pb.h"
#include "ft/v1/workers.pb.h"

namespace ft {

// "w-1/0 w-1/1 w-2/0": worker and slot, by rank.
std::string TextOf(const v1::Placement& placement);

// Keeps the exit report of the member that ended first, within its bounds.
void KeepExitReport(const v1::AttemptEnded& end, v1::Attempt& attempt);

// With these the timeline says all of the row but the text of the exit report.
std::map<std::string, std::string> FieldsOfEnd(const v1::Attempt& attempt);

}  // namespace ft
