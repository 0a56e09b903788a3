// SPDX-License-Identifier: Apache-2.0
//
// Bearer tokens: "ft_", 64 hexadecimal characters of 32 random bytes, and 8 of
// a checksum, so that a cut or mistyped token is told apart from a wrong one.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ft {

std::string MakeToken();

// Whether the form and the checksum are right; says nothing about access.
bool IsWellFormedToken(absl::string_view token);

// The token of a 0600 file. Makes file and token if there is none.
// PERMISSION_DENIED: others may read the file. INVALID_ARGUMENT: no token.
absl::StatusOr<std::string> ReadOrMakeTokenFile(const std::string& path);

// The token of an existing 0600 file.
absl::StatusOr<std::string> ReadTokenFile(const std::string& path);

}  // namespace ft
