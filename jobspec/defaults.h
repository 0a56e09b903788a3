// SPDX-License-Identifier: Apache-2.0
//
// Every default and every "auto", fixed: what is stored never depends on the
// version that runs it.

#pragma once

#include "ft/v1/job_spec.pb.h"

namespace ft {

// Idempotent. REQUIRES: the spec is valid (jobspec/validate.h)
void ApplyDefaults(v1::JobSpec& spec);

}  // namespace ft
