// SPDX-License-Identifier: Apache-2.0
//
// ft-coordinator: flags in, a running coordinator, an orderly end. Wiring only.

#include <unistd.h>
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/failpoint.h"
#include "common/file.h"
#include "common/log.h"
#include "common/process.h"
#include "common/status.h"
#include "common/stop_token.h"
#include "common/version.h"
#include "coordinator/coordinator.h"

namespace ft {
namespace {

// The store can no longer be trusted. What was told is durable; a new process
// goes on from there.
void Die(const absl::Status& error) {
  Log(LogSeverity::kError, "coordinator",
      "store failed, exiting; a restart recovers",
      {{"error", error.ToString()}});
  _exit(1);
}

absl::Status WriteEndpoints(const std::string& path,
                            const Coordinator& coordinator) {
  if (path.empty()) return absl::OkStatus();
  FT_RETURN_IF_ERROR(RemoveTemporaries(path));
  return WriteFileAtomic(
      path,
      absl::StrCat("{\"pid\": ", ::getpid(), ", \"client_address\": \"",
                   coordinator.client_address(), "\", \"worker_address\": \"",
                   coordinator.worker_address(), "\", \"http_address\": \"",
                   coordinator.http_address(),
                   "\", \"incarnation\": ", coordinator.incarnation(), "}\n"));
}

int Run(CoordinatorConfig config, const std::string& endpoint_file,
        const std::string& failpoints) {
  // Distributions build abseil with its lock-order checks, which cost a
  // coordinator under load a few per cent; tests keep them.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  KeepPrivate();
  TakeDescriptors();
  SetSyncFailureHandler(Die);
  StopSignals& stop = StopSignals::Install();
  config.on_fatal = Die;
  absl::Status status =
      failpoints.empty() ? absl::OkStatus() : OpenFailpoints(failpoints);
  absl::StatusOr<std::unique_ptr<Coordinator>> coordinator =
      absl::UnknownError("not started");
  if (status.ok()) {
    coordinator = Coordinator::Start(std::move(config));
    status = coordinator.status();
  }
  if (status.ok()) status = WriteEndpoints(endpoint_file, **coordinator);
  if (!status.ok()) {
    Log(LogSeverity::kError, "coordinator", "cannot start",
        {{"error", status.message()}});
    return 1;
  }
  Log(LogSeverity::kInfo, "coordinator", "ready",
      {{"clients", (*coordinator)->client_address()},
       {"workers", (*coordinator)->worker_address()},
       {"http", (*coordinator)->http_address()},
       {"incarnation", (*coordinator)->incarnation()},
       {"version", Version()}});
  while (!stop.Wait(1, absl::Hours(1))) {
  }
  Log(LogSeverity::kInfo, "coordinator", "stopping");
  coordinator->reset();
  return 0;
}

}  // namespace
}  // namespace ft

int main(int argc, char** argv) {
  ft::CoordinatorConfig config;
  std::string endpoint_file;
  std::string failpoints;
  double timer_scale = 1;
  CLI::App app("The control plane of ft: queue, leases, artifacts.",
               "ft-coordinator");
  app.add_option("--data_dir", config.data_dir,
                 "Folder of the store, tokens, blobs and logs")
      ->required();
  app.add_option("--client_address", config.client_address,
                 "Where clients call; loopback, port 0 takes a free one")
      ->capture_default_str();
  app.add_option("--worker_address", config.worker_address,
                 "Where workers attach; loopback")
      ->capture_default_str();
  app.add_option("--http_address", config.http_address,
                 "/livez, /readyz, /metrics; loopback")
      ->capture_default_str();
  app.add_option("--endpoint_file", endpoint_file,
                 "JSON file that gets pid and addresses when all listen");
  app.add_option("--timer_scale", timer_scale,
                 "Factor on every timer; tests make it small")
      ->check(CLI::Range(0.001, 1000.0))
      ->capture_default_str();
  const auto duration = [&app](const std::string& name, absl::Duration& value,
                               const std::string& help) {
    app.add_option_function<std::string>(
           name,
           [name, &value](const std::string& text) {
             if (!absl::ParseDuration(text, &value) ||
                 value <= absl::ZeroDuration()) {
               throw CLI::ValidationError(name, "wants a time like 90s or 1h");
             }
           },
           help)
        ->default_str(absl::FormatDuration(value));
  };
  duration("--sweep_period", config.janitor.period,
           "Between looks for blobs that nothing refers to");
  duration("--keep_blobs", config.janitor.keep_blobs,
           "How long such a blob stays after it was last asked for");
  duration("--keep_uploads", config.janitor.keep_uploads,
           "How long an upload stays after its last byte");
  // For tests alone: common/failpoint.h.
  app.add_option("--failpoints", failpoints)->group("");
  app.set_version_flag("--version", std::string(ft::Version()));
  CLI11_PARSE(app, argc, argv);
  config.timers = ft::Timers().Scaled(timer_scale);
  return ft::Run(std::move(config), endpoint_file, failpoints);
}
