// SPDX-License-Identifier: Apache-2.0
//
// ft-worker: flags in, a running daemon, an orderly end. Wiring only.

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "common/address.h"
#include "common/bytes.h"
#include "common/file.h"
#include "common/log.h"
#include "common/stop_token.h"
#include "common/version.h"
#include "worker/daemon.h"

namespace ft {
namespace {

constexpr absl::Duration kDrainGrace = absl::Seconds(25);

int Run(WorkerConfig config) {
  umask(077);
  // A core file would hold the token.
  const rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  StopSignals& stop = StopSignals::Install();
  const std::string endpoint_file = config.endpoint_file;
  const std::string worker_id = config.worker_id;
  absl::StatusOr<std::unique_ptr<Daemon>> daemon =
      absl::UnknownError("not started");
  absl::Status status = ParseLoopbackAddress(config.coordinator).status();
  if (status.ok()) {
    daemon = Daemon::Start(std::move(config));
    status = daemon.status();
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
  return ft::Run(std::move(config));
}
