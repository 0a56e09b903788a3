// SPDX-License-Identifier: Apache-2.0
//
// ft-worker: flags in, a running daemon, an orderly end. Wiring only.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "common/address.h"
#include "common/bytes.h"
#include "common/failpoint.h"
#include "common/file.h"
#include "common/log.h"
#include "common/process.h"
#include "common/stop_token.h"
#include "common/version.h"
#include "worker/daemon.h"

namespace ft {
namespace {

constexpr absl::Duration kDrainGrace = absl::Seconds(25);

// What is on the disk is not known any more. The ranks die with us; a new
// daemon begins from what the coordinator has.
void Die(const absl::Status& error) {
  Log(LogSeverity::kError, "worker", "disk failed, exiting; a restart recovers",
      {{"error", error.ToString()}});
  _exit(1);
}

int Run(WorkerConfig config) {
  KeepPrivate();
  SetSyncFailureHandler(Die);
  StopSignals& stop = StopSignals::Install();
  const std::string endpoint_file = config.endpoint_file;
  const std::string worker_id = config.worker_id;
  absl::StatusOr<std::unique_ptr<Daemon>> daemon =
      absl::UnknownError("not started");
  absl::Status status = ParseLoopbackAddress(config.coordinator).status();
  if (status.ok() && !config.failpoints.empty()) {
    status = OpenFailpoints(config.failpoints);
  }
  if (status.ok()) {
    daemon = Daemon::Start(std::move(config));
    status = daemon.status();
  }
  if (status.ok() && !endpoint_file.empty()) {
    status = RemoveTemporaries(endpoint_file);
  }
  if (status.ok() && !endpoint_file.empty()) {
    status = WriteFileAtomic(
        endpoint_file,
        absl::StrCat("{\"pid\": ", getpid(), ", \"worker_id\": \"", worker_id,
                     "\", \"http_address\": \"", (*daemon)->http_address(),
                     "\"}\n"));
  }
  if (!status.ok()) {
    Log(LogSeverity::kError, "worker", "cannot start",
        {{"error", status.message()}});
    return 1;
  }
  Log(LogSeverity::kInfo, "worker", "ready",
      {{"worker", worker_id},
       {"http", (*daemon)->http_address()},
       {"version", Version()}});
  while (!stop.Wait(1, absl::Hours(1))) {
  }
  Log(LogSeverity::kInfo, "worker", "draining", {{"worker", worker_id}});
  std::thread insist([&] {
    // The second signal ends at once; the ranks die with us.
    while (!stop.Wait(2, absl::Hours(1))) {
    }
    _exit(1);
  });
  insist.detach();
  (*daemon)->Drain(kDrainGrace);
  daemon->reset();
  return 0;
}

}  // namespace
}  // namespace ft

int main(int argc, char** argv) {
  ft::WorkerConfig config;
  CLI::App app(
      "The daemon of a machine: takes attempts, starts and watches their "
      "ranks.\n\n  ft-worker --data_dir /var/lib/ft/worker --coordinator "
      "127.0.0.1:7444 \\\n    --token_file worker.token --worker_id w-1 "
      "--model_root /var/lib/ft/models \\\n    --train_program "
      "/usr/bin/ft-train");
  app.set_version_flag(
      "--version", absl::StrCat("ft-worker ", std::string(ft::Version()), " (",
                                std::string(ft::Revision()), ")"));
  app.add_option("--data_dir", config.data_dir, "Cache and workspaces")
      ->required();
  app.add_option("--coordinator", config.coordinator,
                 "HOST:PORT of its worker listener")
      ->required();
  app.add_option("--token_file", config.token_file, "Holds the worker's token")
      ->required();
  app.add_option("--worker_id", config.worker_id, "Stable name: a-z, 0-9 and -")
      ->required();
  app.add_option("--slots", config.slots, "Places for ranks")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--model_root", config.model_root, "Folder of models")
      ->required();
  app.add_option("--train_program", config.train_program, "Path of ft-train")
      ->required();
  app.add_option("--http_address", config.http_address,
                 "Of /livez, /readyz, /metrics")
      ->capture_default_str();
  std::string cache_size = "20GiB";
  app.add_option("--cache_size", cache_size,
                 "Data and checkpoints kept for the next attempt")
      ->capture_default_str();
  app.add_option("--endpoint_file", config.endpoint_file,
                 "Written when ready: pid and addresses");
  app.add_option("--snapshot_dir", config.snapshot_dir,
                 "Local snapshots, on a memory file system; default: a folder "
                 "of this worker under /dev/shm");
  std::string snapshot_size = "4GiB";
  app.add_option("--snapshot_size", snapshot_size,
                 "Most of it that snapshots take")
      ->capture_default_str();
  std::string disk_reserve = "64MiB";
  app.add_option("--disk_reserve", disk_reserve,
                 "Kept back under --data_dir, for what must be written when "
                 "the disk is full: a checkpoint of its ranks; 0: nothing")
      ->capture_default_str();
  app.add_option("--warm_ranks", config.warm_ranks,
                 "Whether processes stand by for the next ranks, one a slot")
      ->capture_default_str();
  app.add_option("--failpoints", config.failpoints)->group("");
  app.add_option("--timer_scale", config.timer_scale,
                 "Factor of all timers; for tests")
      ->check(CLI::Range(0.01, 10.0));
  CLI11_PARSE(app, argc, argv);
  const absl::StatusOr<int64_t> cache_bytes = ft::ParseBytes(cache_size);
  if (!cache_bytes.ok()) {
    std::fprintf(stderr, "--cache_size: %s\n",
                 std::string(cache_bytes.status().message()).c_str());
    return 2;
  }
  config.cache_bytes = *cache_bytes;
  const absl::StatusOr<int64_t> snapshot_bytes = ft::ParseBytes(snapshot_size);
  if (!snapshot_bytes.ok()) {
    std::fprintf(stderr, "--snapshot_size: %s\n",
                 std::string(snapshot_bytes.status().message()).c_str());
    return 2;
  }
  config.snapshot_bytes = *snapshot_bytes;
  const absl::StatusOr<int64_t> reserve_bytes = ft::ParseBytes(disk_reserve);
  if (!reserve_bytes.ok()) {
    std::fprintf(stderr, "--disk_reserve: %s\n",
                 std::string(reserve_bytes.status().message()).c_str());
    return 2;
  }
  config.reserve_bytes = *reserve_bytes;
  return ft::Run(std::move(config));
}
