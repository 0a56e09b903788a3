// SPDX-License-Identifier: Apache-2.0
//
// The rules of a job spec, one function a section; all violations at once. A
// field whose feature does not exist yet accepts its default only.

#pragma once

#include "ft/v1/job_spec.pb.h"
#include "jobspec/violations.h"

namespace ft {

enum class SpecOrigin {
  kJobFile,    // Paths of data are files; nothing is fixed yet.
  kSubmitted,  // Data carry digests.
};

// Accepts a spec with or without its defaults.
void ValidateSpec(const v1::JobSpec& spec, SpecOrigin origin,
                  Violations& violations);

}  // namespace ft
