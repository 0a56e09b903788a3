// SPDX-License-Identifier: Apache-2.0
//
// Who may call what: one table of RPC and role, default deny, on the method as
// the wire names it. A test lists every RPC and demands its row.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ft {

enum class Role { kAdmin, kWorker };

// Who calls, after the token was checked.
struct Principal {
  Role role = Role::kWorker;
  std::string name;
};

absl::string_view RoleName(Role role);

// `path` is "/ft.v1.JobService/CreateJob".
// PERMISSION_DENIED(DENIED): the role has no such right, or the method is
// unknown.
absl::Status CheckAccess(Role role, absl::string_view path);

// Every path that has a row.
std::vector<std::string> KnownMethods();

// Tokens and what they are for. Only digests are kept. Immutable after its
// making, therefore thread-safe.
class TokenTable {
 public:
  void Add(absl::string_view token, Role role);

  // Nullopt: nobody's token. Takes the same time for each.
  std::optional<Principal> Find(absl::string_view token) const;

 private:
  struct Entry {
    std::string sha256;
    Role role;
  };
  std::vector<Entry> entries_;
};

// Who sends this `authorization` header. UNAUTHENTICATED: nobody's, or none;
// the message is for the caller.
absl::StatusOr<Principal> Authenticate(
    const TokenTable& tokens, std::optional<absl::string_view> authorization);

}  // namespace ft
