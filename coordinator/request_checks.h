// SPDX-License-Identifier: Apache-2.0
//
// What is asked of a request before anybody acts on it: limits that hold for
// all, and the shape of what workers say first. docs/security.md lists them.

#pragma once

#include <google/protobuf/message.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "ft/v1/workers.pb.h"

namespace ft {

// Of one repeated field, or one map, wherever it stands in a request.
inline constexpr int kMaxRepeated = 10'000;

// INVALID_ARGUMENT(LIMIT_EXCEEDED): a repeated field is longer; the message has
// its path, its length and the limit.
absl::Status CheckRepeated(const google::protobuf::Message& request);

// The first message of a worker's stream.
// INVALID_ARGUMENT: no Attach, or a field is wrong.
absl::Status CheckAttach(const v1::ConnectRequest& first);

// Those after it. INVALID_ARGUMENT: an Attach, or over a limit.
absl::Status CheckLater(const v1::ConnectRequest& message);

// [a-z0-9][a-z0-9._-]{0,127}.
bool IsArtifactName(absl::string_view name);

}  // namespace ft
