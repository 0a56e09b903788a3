// SPDX-License-Identifier: Apache-2.0

#include "tests/chaos/soak_cluster.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/check.h"
#include "common/file.h"
#include "common/status.h"

namespace ft::testing {
namespace {

constexpr absl::Duration kStartTimeout = absl::Minutes(2);

// The text between `begin` and the next '/' or ' '.
std::string PartAfter(const std::string& line, const std::string& begin) {
  const size_t at = line.find(begin);
  if (at == std::string::npos) return "";
  const size_t from = at + begin.size();
  return line.substr(from, line.find_first_of("/ ", from) - from);
}

// A free port below those that the system gives to connections: a client that
// dials a coordinator which is away could otherwise be given that very port,
// and the coordinator could not come back.
int FreePort() {
  static std::mt19937 random(static_cast<uint32_t>(getpid()));
  while (true) {
    const int port = std::uniform_int_distribution<int>(12000, 30000)(random);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    FT_CHECK(fd.is_open());
    if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
             sizeof(address)) == 0) {
      return port;
    }
  }
}

pid_t ParentOf(pid_t pid) {
  const std::string stat =
      ReadFile(absl::StrCat("/proc/", pid, "/stat"), 4096).value_or("");
  // "pid (comm) state ppid": comm may hold anything but its last ')'.
  const size_t comm_end = stat.rfind(')');
  if (comm_end == std::string::npos) return 0;
  const std::vector<std::string> fields =
      absl::StrSplit(stat.substr(comm_end + 2), ' ');
  pid_t parent = 0;
  if (fields.size() < 2 || !absl::SimpleAtoi(fields[1], &parent)) return 0;
  return parent;
}

}  // namespace

SoakCluster::SoakCluster(SoakClusterOptions options)
    : options_(std::move(options)) {
  for (const char* flag :
       {"client_address", "worker_address", "http_address"}) {
    addresses_[flag] = absl::StrCat("127.0.0.1:", FreePort());
  }
  for (int i = 1; i <= options_.workers; ++i) {
    workers_.push_back(absl::StrCat("w-", i));
  }
}

absl::StatusOr<std::unique_ptr<SoakCluster>> SoakCluster::Start(
    SoakClusterOptions options) {
  std::unique_ptr<SoakCluster> cluster(new SoakCluster(std::move(options)));
  FT_RETURN_IF_ERROR(cluster->StartAll());
  return cluster;
}

absl::Status SoakCluster::StartAll() {
  const std::string models = JoinPath(dir(), "models");
  FT_RETURN_IF_ERROR(MakeDirs(models));
  FT_RETURN_IF_ERROR(MakeDirs(JoinPath(dir(), "logs")));
  std::filesystem::copy(options_.model_dir, JoinPath(models, "tiny-chat"),
                        std::filesystem::copy_options::recursive);
  failpoints_ = std::make_unique<FailpointFile>(JoinPath(dir(), "failpoints"));
  supervisor_ = std::make_unique<Supervisor>(JoinPath(dir(), "logs"));
  supervisor_->Start("coordinator", CoordinatorWords());
  FT_RETURN_IF_ERROR(AwaitEndpoint("coordinator"));
  for (const std::string& name : workers_) {
    supervisor_->Start(name, WorkerWords(name));
  }
  const std::unique_ptr<Client> client = NewClient();
  const absl::Time deadline = absl::Now() + kStartTimeout;
  while (!AllReady(*client)) {
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError("the workers are not ready");
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
  return absl::OkStatus();
}

std::vector<std::string> SoakCluster::CoordinatorWords() const {
  std::vector<std::string> words = {
      JoinPath(options_.program_dir, "ft-coordinator"), "--data_dir",
      JoinPath(dir(), "coordinator"), "--endpoint_file",
      JoinPath(dir(), "coordinator.json"), "--timer_scale",
      absl::StrCat(options_.timer_scale), "--failpoints", failpoints_->path(),
      // So that blobs are swept while attempts come and go.
      "--sweep_period", "4s", "--keep_blobs", "20s", "--keep_uploads", "60s"};
  for (const auto& [flag, address] : addresses_) {
    words.push_back("--" + flag);
    words.push_back(address);
  }
  return words;
}

std::vector<std::string> SoakCluster::WorkerWords(
    const std::string& name) const {
  return {JoinPath(options_.program_dir, "ft-worker"),
          "--data_dir",
          JoinPath(dir(), name),
          "--coordinator",
          addresses_.at("worker_address"),
          "--token_file",
          JoinPath(dir(), "coordinator/tokens/worker.token"),
          "--worker_id",
          name,
          "--slots",
          absl::StrCat(options_.slots),
          "--model_root",
          JoinPath(dir(), "models"),
          "--train_program",
          JoinPath(options_.program_dir, "ft-train"),
          "--endpoint_file",
          JoinPath(dir(), name + ".json"),
          "--timer_scale",
          absl::StrCat(options_.timer_scale),
          "--failpoints",
          failpoints_->path()};
}

absl::Status SoakCluster::AwaitEndpoint(const std::string& name) const {
  const std::string path = JoinPath(dir(), name + ".json");
  const absl::Time deadline = absl::Now() + kStartTimeout;
  while (!Exists(path)) {
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(name, " is not ready"));
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
  return absl::OkStatus();
}

std::unique_ptr<Client> SoakCluster::NewClient() const {
  absl::StatusOr<std::unique_ptr<Client>> client = Client::Connect(
      {.address = addresses_.at("client_address"),
       .token_file = JoinPath(dir(), "coordinator/tokens/admin.token")});
  FT_CHECK(client.ok());
  return *std::move(client);
}

std::vector<RankProcess> SoakCluster::Ranks() const {
  std::vector<RankProcess> ranks;
  for (const auto& [pid, line] : CommandLinesWith(dir() + "/")) {
    // A rank works in its workspace, .../jobs/JOB/EPOCH/rank-N; one that stands
    // by has none yet.
    std::error_code error;
    const std::string folder = std::filesystem::read_symlink(
        absl::StrCat("/proc/", pid, "/cwd"), error);
    if (!absl::StrContains(line, " rank ") || error) continue;
    RankProcess rank{.pid = pid,
                     .parent = ParentOf(pid),
                     .job_id = PartAfter(folder, "/jobs/")};
    if (!absl::SimpleAtoi(PartAfter(folder, "/rank-"), &rank.rank)) continue;
    ranks.push_back(std::move(rank));
  }
  return ranks;
}

int64_t SoakCluster::ResidentBytes(const std::string& name) const {
  const pid_t pid = supervisor_->Pid(name);
  if (pid == 0) return 0;
  const std::string statm =
      ReadFile(absl::StrCat("/proc/", pid, "/statm"), 4096).value_or("");
  const std::vector<std::string> fields = absl::StrSplit(statm, ' ');
  int64_t pages = 0;
  if (fields.size() < 2 || !absl::SimpleAtoi(fields[1], &pages)) return 0;
  return pages * sysconf(_SC_PAGESIZE);
}

bool SoakCluster::AllReady(Client& client) const {
  const auto list = client.ListWorkers();
  int ready = 0;
  if (list.ok()) {
    for (const v1::WorkerInfo& worker : list->workers()) {
      ready += worker.state() == v1::WORKER_STATE_READY;
    }
  }
  return ready == options_.workers;
}

Evidence SoakCluster::NewEvidence() const {
  Evidence evidence{.coordinator_dir = JoinPath(dir(), "coordinator"),
                    .log_files = {supervisor_->LogFile("coordinator")},
                    .process_mark = dir() + "/"};
  for (const std::string& name : workers_) {
    evidence.worker_dirs.push_back(JoinPath(dir(), name));
    evidence.log_files.push_back(supervisor_->LogFile(name));
  }
  return evidence;
}

}  // namespace ft::testing
