// SPDX-License-Identifier: Apache-2.0

#include "coordinator/access.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/digest.h"
#include "coordinator/reasons.h"

namespace ft {
namespace {

struct Row {
  const char* path;
  bool admin;
  bool worker;
};

constexpr Row kTable[] = {
    {"/ft.v1.AdminService/GetServerInfo", true, false},
    {"/ft.v1.AdminService/ListModels", true, false},
    {"/ft.v1.AdminService/ListWorkers", true, false},
    {"/ft.v1.AdminService/ReleaseWorker", true, false},

    {"/ft.v1.ArtifactService/BeginUpload", true, true},
    {"/ft.v1.ArtifactService/CommitArtifact", true, true},
    {"/ft.v1.ArtifactService/DeleteArtifact", true, false},
    {"/ft.v1.ArtifactService/FindMissing", true, true},
    {"/ft.v1.ArtifactService/FinishUpload", true, true},
    {"/ft.v1.ArtifactService/GetArtifact", true, true},
    {"/ft.v1.ArtifactService/ListArtifacts", true, false},
    {"/ft.v1.ArtifactService/QueryUpload", true, true},
    {"/ft.v1.ArtifactService/Read", true, true},
    {"/ft.v1.ArtifactService/Write", true, true},

    {"/ft.v1.JobService/CancelJob", true, false},
    {"/ft.v1.JobService/CreateJob", true, false},
    {"/ft.v1.JobService/DeleteJob", true, false},
    {"/ft.v1.JobService/GetJob", true, false},
    {"/ft.v1.JobService/ListEvents", true, false},
    {"/ft.v1.JobService/ListJobs", true, false},
    {"/ft.v1.JobService/ListMetrics", true, false},
    {"/ft.v1.JobService/ResumeJob", true, false},
    {"/ft.v1.JobService/TailLogs", true, false},
    {"/ft.v1.JobService/WatchJob", true, false},

    {"/ft.v1.WorkerService/Connect", false, true},
    {"/ft.v1.WorkerService/Report", false, true},

    {"/grpc.health.v1.Health/Check", true, true},
    {"/grpc.health.v1.Health/Watch", true, true},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", true,
     false},
};

}  // namespace

absl::string_view RoleName(Role role) {
  return role == Role::kAdmin ? "admin" : "worker";
}

absl::Status CheckAccess(Role role, absl::string_view path) {
  for (const Row& row : kTable) {
    if (path == row.path && (role == Role::kAdmin ? row.admin : row.worker)) {
      return absl::OkStatus();
    }
  }
  return ReasonError(
      absl::StatusCode::kPermissionDenied, v1::REASON_DENIED,
      absl::StrCat("the ", RoleName(role), " token does not allow ", path));
}

std::vector<std::string> KnownMethods() {
  std::vector<std::string> paths;
  for (const Row& row : kTable) paths.push_back(row.path);
  return paths;
}

void TokenTable::Add(absl::string_view token, Role role) {
  entries_.push_back({Sha256Hex(token), role});
}

std::optional<Principal> TokenTable::Find(absl::string_view token) const {
  const std::string sha256 = Sha256Hex(token);
  std::optional<Principal> found;
  for (const Entry& entry : entries_) {
    if (EqualInConstantTime(entry.sha256, sha256)) {
      found = Principal{entry.role, std::string(RoleName(entry.role))};
    }
  }
  return found;
}

absl::StatusOr<Principal> Authenticate(
    const TokenTable& tokens, std::optional<absl::string_view> authorization) {
  if (!authorization.has_value()) {
    return absl::UnauthenticatedError(
        "a bearer token is wanted: authorization: Bearer ft_...");
  }
  absl::string_view token = *authorization;
  std::optional<Principal> caller;
  if (absl::ConsumePrefix(&token, "Bearer ")) caller = tokens.Find(token);
  if (!caller.has_value()) {
    return absl::UnauthenticatedError(
        "the bearer token is not one of this coordinator's");
  }
  return *std::move(caller);
}

}  // namespace ft
