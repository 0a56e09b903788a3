// SPDX-License-Identifier: Apache-2.0
//
// A JobSpec as a job file: field order of the proto, what is unset left out.
// Reading it gives the same spec.

#pragma once

#include <string>

#include "ft/v1/job_spec.pb.h"

namespace ft {

std::string SpecToYaml(const v1::JobSpec& spec);

}  // namespace ft
