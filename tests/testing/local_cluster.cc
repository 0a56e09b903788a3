// SPDX-License-Identifier: Apache-2.0

#include "tests/testing/local_cluster.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "ctl/output.h"
#include "ctl/submit.h"
#include "jobspec/from_yaml.h"
#include "tests/testing/status_matchers.h"

namespace ft::testing {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(60);

std::string CommandLine(pid_t pid) {
  return absl::StrReplaceAll(
      ReadFile(absl::StrCat("/proc/", pid, "/cmdline"), 1 << 16).value_or(""),
      {{std::string(1, '\0'), " "}});
}

}  // namespace

std::vector<pid_t> ProcessesWith(const std::string& text) {
  std::vector<pid_t> found;
  const absl::StatusOr<std::vector<std::string>> names = ListDir("/proc");
  if (!names.ok()) return found;
  for (const std::string& name : *names) {
    pid_t pid = 0;
    // A process that has ended and is not waited for has an empty line.
    if (absl::SimpleAtoi(name, &pid) && pid != getpid() &&
        absl::StrContains(CommandLine(pid), text)) {
      found.push_back(pid);
    }
  }
  return found;
}

bool AreGone(const std::string& text) {
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (!ProcessesWith(text).empty()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

LocalCluster::LocalCluster(LocalClusterOptions options)
    : options_(std::move(options)) {
  std::filesystem::create_directories(ModelRoot());
  std::filesystem::copy(FT_TEST_SOURCE_DIR "/tests/golden/models/tiny_chat",
                        JoinPath(ModelRoot(), "tiny-chat"),
                        std::filesystem::copy_options::recursive);
  StartCoordinator();
  for (int i = 1; i <= options_.workers; ++i) StartWorker(i);
  const absl::Time deadline = absl::Now() + kTimeout;
  while (absl::Now() < deadline) {
    const auto list = client_->ListWorkers();
    int ready = 0;
    if (list.ok()) {
      for (const v1::WorkerInfo& worker : list->workers()) {
        ready += worker.state() == v1::WORKER_STATE_READY;
      }
    }
    if (ready == options_.workers) return;
    absl::SleepFor(absl::Milliseconds(5));
  }
  ADD_FAILURE() << "the workers are not ready";
}

LocalCluster::~LocalCluster() {
  if (options_.expects_invariants) {
    for (const std::string& violation : CheckInvariants()) {
      ADD_FAILURE() << violation;
    }
  }
  if (::testing::Test::HasFailure()) {
    for (const auto& [name, pid] : pids_) {
      ADD_FAILURE()
          << name << " said:\n"
          << ReadFile(dir_ / absl::StrCat(name, ".log"), 1 << 24).value_or("");
    }
  }
  for (const auto& [name, pid] : pids_) {
    if (pid > 0 && name != "coordinator") kill(pid, SIGKILL);
  }
  for (auto& [name, pid] : pids_) {
    if (pid <= 0) continue;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  AreGone(dir_.path());
  for (const pid_t pid : ProcessesWith(dir_.path())) {
    const std::string proc = absl::StrCat("/proc/", pid, "/");
    std::string words = ReadFile(proc + "cmdline", 1 << 16).value_or("");
    std::replace(words.begin(), words.end(), '\0', ' ');
    ADD_FAILURE() << "a process is left: " << pid << " " << words << "\n"
                  << ReadFile(proc + "status", 1 << 16).value_or("")
                  << ReadFile(proc + "wchan", 4096).value_or("");
    kill(pid, SIGKILL);
  }
}

std::string LocalCluster::Program(const std::string& name) const {
  return JoinPath(options_.program_dir.empty() ? FT_TEST_BINARY_DIR "/bin"
                                               : options_.program_dir,
                  name);
}

bool LocalCluster::CanRest() {
  for (const auto& [name, pid] : pids_) {
    if (pid <= 0 || waitpid(pid, nullptr, WNOHANG) != 0) return false;
  }
  const absl::StatusOr<v1::ListJobsResponse> list = client_->ListJobs({});
  return list.ok() && std::all_of(list->jobs().begin(), list->jobs().end(),
                                  [](const v1::Job& job) {
                                    return IsTerminal(job.status().state());
                                  });
}

std::vector<std::string> LocalCluster::CheckInvariants(
    const ClientMemory& clients) {
  Evidence evidence{.coordinator_dir = dir_ / "coordinator",
                    .process_mark = dir_.path() + "/",
                    .clients = clients};
  for (const auto& [name, pid] : pids_) {
    evidence.log_files.push_back(dir_ / absl::StrCat(name, ".log"));
    if (name != "coordinator") evidence.worker_dirs.push_back(dir_ / name);
  }
  if (const char* const audit = std::getenv("FT_SYNC_AUDIT")) {
    evidence.sync_audit = audit;
  }
  evidence.at_rest = CanRest();
  // Workspaces go a moment after the job's end.
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  Violations leavings;
  do {
    leavings.clear();
    CheckLeavings(evidence, leavings);
    if (!leavings.empty()) absl::SleepFor(absl::Milliseconds(10));
  } while (!leavings.empty() && absl::Now() < deadline);
  return testing::CheckInvariants(evidence);
}

std::string LocalCluster::AdminTokenFile() const {
  return dir_ / "coordinator/tokens/admin.token";
}

std::string LocalCluster::WorkerTokenFile() const {
  return dir_ / "coordinator/tokens/worker.token";
}

std::string LocalCluster::SnapshotDir(int worker) const {
  return dir_ / absl::StrCat("snapshots-", worker);
}

std::string LocalCluster::Endpoint(const std::string& program,
                                   const std::string& field) const {
  const auto value = nlohmann::json::parse(
      ReadFile(dir_ / absl::StrCat(program, ".json"), 1 << 16).value_or(""),
      nullptr, false);
  return value.is_object() ? value.value(field, "") : "";
}

pid_t LocalCluster::Spawn(std::vector<std::string> words,
                          const std::string& name) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string log = dir_ / absl::StrCat(name, ".log");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0600);
  pid_t pid = 0;
  EXPECT_EQ(posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ),
            0)
      << argv[0];
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

void LocalCluster::AwaitFile(const std::string& path, const std::string& name) {
  const absl::Time deadline = absl::Now() + kTimeout;
  while (!Exists(path)) {
    if (absl::Now() > deadline) {
      FAIL()
          << name << " is not ready: "
          << ReadFile(dir_ / absl::StrCat(name, ".log"), 1 << 24).value_or("");
    }
    absl::SleepFor(absl::Milliseconds(2));
  }
}

void LocalCluster::StartCoordinator() {
  const std::string endpoint = dir_ / "coordinator.json";
  std::filesystem::remove(endpoint);
  std::vector<std::string> words = {Program("ft-coordinator"),
                                    "--data_dir",
                                    dir_ / "coordinator",
                                    "--endpoint_file",
                                    endpoint,
                                    "--timer_scale",
                                    absl::StrCat(options_.timer_scale)};
  if (!options_.failpoints.empty()) {
    words.insert(words.end(), {"--failpoints", options_.failpoints});
  }
  const std::vector<std::string> listeners = {"client_address",
                                              "worker_address", "http_address"};
  for (const std::string& listener : listeners) {
    words.push_back("--" + listener);
    words.push_back(addresses_.contains(listener) ? addresses_.at(listener)
                                                  : "127.0.0.1:0");
  }
  pids_["coordinator"] = Spawn(words, "coordinator");
  AwaitFile(endpoint, "coordinator");
  for (const std::string& listener : listeners) {
    addresses_[listener] = Endpoint("coordinator", listener);
  }
  absl::StatusOr<std::unique_ptr<Client>> client =
      Client::Connect({.address = addresses_["client_address"],
                       .token_file = AdminTokenFile()});
  ASSERT_TRUE(client.ok()) << client.status();
  client_ = *std::move(client);
}

void LocalCluster::StartWorker(int index, int slots) {
  if (options_.delay > absl::ZeroDuration() && way_ == nullptr) {
    way_ = std::make_unique<TcpProxy>(addresses_["worker_address"]);
    way_->Delay(TcpProxy::Direction::kToServer, options_.delay);
    way_->Delay(TcpProxy::Direction::kToClient, options_.delay);
  }
  const std::string name = absl::StrCat("w-", index);
  const std::string endpoint = dir_ / absl::StrCat(name, ".json");
  std::filesystem::remove(endpoint);
  std::vector<std::string> words = {
      Program("ft-worker"),
      "--data_dir",
      dir_ / name,
      "--coordinator",
      way_ ? way_->address() : addresses_["worker_address"],
      "--token_file",
      WorkerTokenFile(),
      "--worker_id",
      name,
      "--model_root",
      ModelRoot(),
      "--train_program",
      Program("ft-train"),
      "--endpoint_file",
      endpoint,
      "--timer_scale",
      absl::StrCat(options_.timer_scale),
      "--slots",
      absl::StrCat(slots),
      "--snapshot_dir",
      SnapshotDir(index)};
  if (!options_.failpoints.empty()) {
    words.insert(words.end(), {"--failpoints", options_.failpoints});
  }
  pids_[name] = Spawn(words, name);
  AwaitFile(endpoint, name);
}

void LocalCluster::EndCoordinator(int signal) {
  kill(pids_["coordinator"], signal);
  waitpid(std::exchange(pids_["coordinator"], 0), nullptr, 0);
}

void LocalCluster::EndWorker(int index, int signal) {
  pid_t& pid = pids_[absl::StrCat("w-", index)];
  kill(pid, signal);
  waitpid(std::exchange(pid, 0), nullptr, 0);
}

v1::Job LocalCluster::Submit(const std::string& yaml) {
  const absl::StatusOr<v1::JobSpec> spec = ParseJobFile(yaml, "job.yaml");
  EXPECT_TRUE(spec.ok()) << spec.status();
  if (!spec.ok()) return {};
  const absl::StatusOr<v1::Job> job =
      ft::Submit(*client_, *spec, FT_TEST_SOURCE_DIR "/examples");
  EXPECT_TRUE(job.ok()) << job.status();
  return job.value_or(v1::Job());
}

v1::Job LocalCluster::WaitFor(
    const std::string& job_id,
    const std::function<bool(const v1::Job&)>& is_so) {
  const absl::Time deadline = absl::Now() + kTimeout;
  while (true) {
    // While a coordinator is down the client asks again by itself.
    const absl::StatusOr<v1::Job> job = client_->GetJob(job_id);
    if (job.ok() && is_so(*job)) return *job;
    if (absl::Now() > deadline) {
      ADD_FAILURE() << job_id << " did not get there: "
                    << (job.ok() ? job->status().DebugString()
                                 : job.status().ToString());
      return job.value_or(v1::Job());
    }
    absl::SleepFor(absl::Milliseconds(2));
  }
}

v1::Job LocalCluster::WaitForEnd(const std::string& job_id) {
  return WaitFor(job_id, [](const v1::Job& job) {
    return IsTerminal(job.status().state());
  });
}

std::map<int, pid_t> LocalCluster::Ranks(const std::string& job_id) const {
  std::map<int, pid_t> ranks;
  // A rank works in its workspace: .../jobs/JOB/EPOCH/rank-N.
  for (const pid_t pid : ProcessesWith(dir_.path())) {
    std::error_code error;
    const std::string folder = std::filesystem::read_symlink(
        absl::StrCat("/proc/", pid, "/cwd"), error);
    const size_t at = folder.find("/rank-");
    int rank = 0;
    if (!error && at != std::string::npos &&
        absl::StrContains(folder, absl::StrCat("/jobs/", job_id, "/")) &&
        absl::SimpleAtoi(folder.substr(at + 6), &rank)) {
      ranks[rank] = pid;
    }
  }
  return ranks;
}

std::map<std::string, std::string> LocalCluster::Result(const v1::Job& job) {
  std::map<std::string, std::string> files;
  const absl::StatusOr<v1::Manifest> manifest =
      client_->artifacts().ReadManifest(
          job.status().artifact_manifest_sha256());
  EXPECT_TRUE(manifest.ok()) << manifest.status();
  if (!manifest.ok()) return files;
  for (const v1::FileEntry& file : manifest->files()) {
    files[file.path()] = file.sha256();
  }
  return files;
}

std::vector<v1::Event> LocalCluster::Events(const std::string& job_id) {
  v1::ListEventsRequest request;
  request.set_job_id(job_id);
  request.set_page_size(1000);
  const absl::StatusOr<v1::ListEventsResponse> list =
      client_->ListEvents(request);
  EXPECT_TRUE(list.ok()) << list.status();
  if (!list.ok()) return {};
  return {list->events().begin(), list->events().end()};
}

std::map<int64_t, v1::StepMetrics> LocalCluster::Steps(
    const std::string& job_id) {
  std::map<int64_t, v1::StepMetrics> steps;
  const absl::StatusOr<v1::ListMetricsResponse> list =
      client_->ListMetrics(job_id, /*after_step=*/0);
  EXPECT_TRUE(list.ok()) << list.status();
  if (!list.ok()) return steps;
  for (const v1::StepMetrics& point : list->points()) {
    if (!point.has_eval_loss()) steps[point.step()] = point;
  }
  return steps;
}

}  // namespace ft::testing
