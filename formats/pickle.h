// SPDX-License-Identifier: Apache-2.0
//
// Recognises pickles (.bin, .pt, .pth, .ckpt), which are never opened as such:
// unpickling runs the code of whoever wrote the file.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ft {

// INVALID_ARGUMENT, with the way out, if the name ends as a pickle's does.
absl::Status RefusePickleName(absl::string_view path);

// INVALID_ARGUMENT, with the way out, if `head`, the first bytes of the file,
// are those of a pickle or of the archive that torch.save makes.
absl::Status RefusePickleBytes(absl::string_view path, absl::string_view head);

// Both, for a file on disk. OK if it cannot be read.
absl::Status RefusePickle(const std::string& path);

}  // namespace ft
