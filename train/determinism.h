// SPDX-License-Identifier: Apache-2.0
//
// What the bits of a run depend on besides its spec: threads, instruction set
// and libraries. Set before the first tensor; kept in every checkpoint.

#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "ft/v1/job_spec.pb.h"

namespace ft {

// Binds threads and instruction set. Call it before any other use of ATen: the
// BLAS reads its environment once.
void BindDeterminism(const v1::Determinism& determinism);

// {isa, threads, torch}.
std::map<std::string, std::string> Fingerprint();

// FAILED_PRECONDITION: `saved` differs from Fingerprint(); the message names
// what, and how to go on.
absl::Status CheckFingerprint(const std::map<std::string, std::string>& saved);

}  // namespace ft
