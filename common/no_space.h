// SPDX-License-Identifier: Apache-2.0
//
// A full disk, told apart from every other shortage: space will help, and
// nothing else is wrong.

#pragma once

#include "absl/status/status.h"

namespace ft {

// Whether `status` came from ErrnoStatus with ENOSPC or EDQUOT, annotated or
// not.
bool IsNoSpace(const absl::Status& status);

}  // namespace ft
