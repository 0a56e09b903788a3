// SPDX-License-Identifier: Apache-2.0
//
// The server's own look at a job spec: the same rules as the user's tools, for
// nothing that comes over a wire is believed.

#pragma once

#include "coordinator/job_book.h"

namespace ft {

class JobSpecChecker : public SpecChecker {
 public:
  absl::Status CheckAndFix(v1::JobSpec& spec) const override;
};

}  // namespace ft
