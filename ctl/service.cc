// SPDX-License-Identifier: Apache-2.0

#include "ctl/service.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/address.h"
#include "common/file.h"
#include "common/status.h"
#include "ctl/client.h"
#include "ctl/daemon_process.h"
#include "ctl/paths.h"

namespace ft {
namespace {

constexpr absl::Duration kReadyTimeout = absl::Seconds(60);
// What runs but is not known by its endpoint file gets so long to write it.
constexpr absl::Duration kEndpointTimeout = absl::Seconds(15);
// A coordinator that is well answers within milliseconds; a busy machine or a
// slow disk may make it seconds.
constexpr absl::Duration kAnswerTimeout = absl::Seconds(10);
constexpr char kCoordinator[] = "ft-coordinator";
constexpr char kWorker[] = "ft-worker";
constexpr absl::Duration kPoll = absl::Milliseconds(20);
constexpr size_t kShownLogLines = 5;

nlohmann::json ReadEndpoint(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, 1 << 16);
  if (!text.ok()) return nullptr;
  return nlohmann::json::parse(*text, nullptr, false);
}

std::string WorkerDir(const std::string& name) {
  return JoinPath(ServiceDir(), name);
}

std::string WorkerEndpoint(const std::string& name) {
  return JoinPath(ServiceDir(), name + ".json");
}

// The daemon of this service over `data_dir`, if it runs.
std::optional<DaemonProcess> FindDaemon(const std::string& program,
                                        const std::string& data_dir) {
  for (DaemonProcess& process : FindDaemons({program})) {
    if (process.data_dir == data_dir) return std::move(process);
  }
  return std::nullopt;
}

bool IsNamedBy(const std::string& endpoint_file, pid_t pid) {
  const nlohmann::json value = ReadEndpoint(endpoint_file);
  return value.is_object() && value.contains("pid") && value["pid"] == pid;
}

std::string LastLines(const std::string& log) {
  const absl::StatusOr<std::string> text = ReadFile(log, 64 << 20);
  if (!text.ok()) return "";
  std::vector<absl::string_view> lines =
      absl::StrSplit(*text, '\n', absl::SkipEmpty());
  if (lines.size() > kShownLogLines) {
    lines.erase(lines.begin(), lines.end() - kShownLogLines);
  }
  return absl::StrJoin(lines, "\n  ");
}

// Waits until the daemon has written its endpoint file; says what its log ends
// with if it does not, or has ended.
absl::Status AwaitEndpoint(const std::string& name, pid_t pid,
                           const std::string& endpoint_file,
                           const std::string& log, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!IsNamedBy(endpoint_file, pid)) {
    const bool has_ended = !IsRunning(pid);
    if (has_ended || absl::Now() > deadline) {
      return absl::Status(
          has_ended ? absl::StatusCode::kInternal
                    : absl::StatusCode::kDeadlineExceeded,
          absl::StrCat(name, has_ended ? " has ended" : " is not ready",
                       "; its log ", log, " ends with:\n  ", LastLines(log)));
    }
    absl::SleepFor(kPoll);
  }
  return absl::OkStatus();
}

absl::Status ProbeCoordinator() {
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                      Client::Connect({}));
  return client->Probe(kAnswerTimeout);
}

// FAILED_PRECONDITION: the daemon over `data_dir` runs, but stands still.
absl::Status CheckItIsNotStopped(const std::string& name,
                                 const std::string& program,
                                 const std::string& data_dir) {
  const std::optional<DaemonProcess> process = FindDaemon(program, data_dir);
  if (!process.has_value() || !IsStopped(process->pid)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(name, " is stopped; let it go on with: kill -CONT ",
                   process->pid, ", or end the service with: ftctl down"));
}

// DEADLINE_EXCEEDED: the coordinator runs and says nothing.
absl::Status CheckCoordinatorAnswers() {
  absl::Status status = ProbeCoordinator();
  if (!absl::IsDeadlineExceeded(status)) return status;
  return absl::DeadlineExceededError(
      absl::StrCat("the coordinator runs, but has not answered for ",
                   absl::FormatDuration(kAnswerTimeout), "; its log is ",
                   JoinPath(ServiceDir(), "coordinator.log"),
                   "; end it with: ftctl down, then ftctl up again"));
}

// Whether the daemon runs and can be reached. One whose `up` was interrupted is
// waited for; one that stays unknown is ended.
bool IsThere(const std::string& name, const std::string& program,
             const std::string& data_dir, const std::string& endpoint_file) {
  const std::optional<DaemonProcess> process = FindDaemon(program, data_dir);
  if (!process.has_value()) return false;
  if (AwaitEndpoint(name, process->pid, endpoint_file, "", kEndpointTimeout)
          .ok()) {
    return true;
  }
  kill(process->pid, SIGTERM);
  EndProcess(process->pid, absl::Seconds(5));
  return false;
}

// The address of the coordinator that was here before, if it is free: workers
// that outlived it, and their running attempts, find the new one by themselves.
std::string FormerAddress(const nlohmann::json& endpoint,
                          const std::string& listener) {
  const std::string any = "127.0.0.1:0";
  if (!endpoint.is_object() || !endpoint.contains(listener) ||
      !endpoint[listener].is_string()) {
    return any;
  }
  const std::string address = endpoint[listener].get<std::string>();
  const absl::StatusOr<HostPort> parsed = ParseLoopbackAddress(address);
  if (!parsed.ok()) return any;
  const UniqueFd probe(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int reuse = 1;
  setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(parsed->port));
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool is_free =
      bind(probe.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0;
  return is_free ? address : any;
}

absl::Status StartCoordinator() {
  const std::string log = JoinPath(ServiceDir(), "coordinator.log");
  const nlohmann::json former = ReadEndpoint(CoordinatorEndpoint());
  // After a boot pids begin anew: the old file may name the one to come.
  FT_RETURN_IF_ERROR(RemoveFile(CoordinatorEndpoint()));
  FT_ASSIGN_OR_RETURN(
      const pid_t pid,
      SpawnDaemon(
          {JoinPath(ProgramDir(), kCoordinator), "--data_dir", CoordinatorDir(),
           "--client_address", FormerAddress(former, "client_address"),
           "--worker_address", FormerAddress(former, "worker_address"),
           "--http_address", FormerAddress(former, "http_address"),
           "--endpoint_file", CoordinatorEndpoint()},
          log));
  return AwaitEndpoint("the coordinator", pid, CoordinatorEndpoint(), log,
                       kReadyTimeout);
}

absl::Status StartWorker(const std::string& name) {
  const nlohmann::json endpoint = ReadEndpoint(CoordinatorEndpoint());
  const std::string log = JoinPath(ServiceDir(), name + ".log");
  FT_RETURN_IF_ERROR(RemoveFile(WorkerEndpoint(name)));
  FT_ASSIGN_OR_RETURN(
      const pid_t pid,
      SpawnDaemon(
          {JoinPath(ProgramDir(), kWorker), "--data_dir", WorkerDir(name),
           "--coordinator", endpoint.value("worker_address", ""),
           "--token_file", WorkerTokenFile(), "--worker_id", name,
           "--model_root", ModelRootDir(), "--train_program",
           JoinPath(ProgramDir(), "ft-train"), "--endpoint_file",
           WorkerEndpoint(name)},
          log));
  return AwaitEndpoint(absl::StrCat("worker ", name), pid, WorkerEndpoint(name),
                       log, kReadyTimeout);
}

// Ends a worker that dials another coordinator than the current: after a
// restart on another port it must be started anew.
void EndIfItDialsAnother(const std::string& name) {
  const std::optional<DaemonProcess> process =
      FindDaemon(kWorker, WorkerDir(name));
  const nlohmann::json endpoint = ReadEndpoint(CoordinatorEndpoint());
  if (!process.has_value() || !endpoint.is_object()) return;
  const std::vector<std::string>& words = process->arguments;
  if (std::count(words.begin(), words.end(),
                 endpoint.value("worker_address", "")) == 0) {
    kill(process->pid, SIGTERM);
    EndProcess(process->pid, absl::Seconds(5));
  }
}

// One `up` or `down` at a time; another one is waited for. The lock goes with
// its process, whatever happens to it.
absl::StatusOr<UniqueFd> LockService(void (*say)(const std::string&)) {
  FT_RETURN_IF_ERROR(MakeDirs(ServiceDir(), 0700));
  const std::string path = JoinPath(ServiceDir(), "lock");
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  const absl::Time deadline = absl::Now() + kReadyTimeout;
  bool has_said = false;
  while (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (absl::Now() > deadline) {
      return absl::FailedPreconditionError(
          "another ftctl up or down is at work");
    }
    if (!std::exchange(has_said, true)) {
      say("waiting for another ftctl up or down");
    }
    absl::SleepFor(kPoll);
  }
  return fd;
}

// Waits until the coordinator calls each of the workers ready.
absl::Status AwaitWorkers(int workers) {
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                      Client::Connect({}));
  const absl::Time deadline = absl::Now() + kReadyTimeout;
  while (true) {
    std::set<std::string> missing;
    for (int i = 1; i <= workers; ++i) missing.insert(absl::StrCat("w-", i));
    const auto list = client->ListWorkers();
    if (list.ok()) {
      for (const v1::WorkerInfo& worker : list->workers()) {
        if (worker.state() == v1::WORKER_STATE_READY) {
          missing.erase(worker.worker_id());
        }
      }
      if (missing.empty()) return absl::OkStatus();
    } else if (!absl::IsUnavailable(list.status())) {
      return list.status();
    }
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("not ready: ", absl::StrJoin(missing, ", "),
                       "; their logs are ", JoinPath(ServiceDir(), "w-*.log")));
    }
    absl::SleepFor(kPoll);
  }
}

// Those of the service of this user.
std::vector<DaemonProcess> OwnDaemons(
    const std::vector<std::string>& programs) {
  std::vector<DaemonProcess> own = FindDaemons(programs);
  std::erase_if(own, [prefix = ServiceDir() + "/"](const DaemonProcess& one) {
    return !absl::StartsWith(one.data_dir, prefix);
  });
  return own;
}

// Any answer but silence is one.
bool IsCoordinatorThere() {
  if (OwnDaemons({kCoordinator}).empty()) return false;
  const absl::Status status = ProbeCoordinator();
  return !absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status);
}

}  // namespace

absl::StatusOr<RunningService> StartService(int workers,
                                            void (*say)(const std::string&)) {
  FT_ASSIGN_OR_RETURN(const UniqueFd lock, LockService(say));
  FT_RETURN_IF_ERROR(MakeDirs(ModelRootDir()));
  FT_RETURN_IF_ERROR(
      CheckItIsNotStopped("the coordinator", kCoordinator, CoordinatorDir()));
  if (IsThere("the coordinator", kCoordinator, CoordinatorDir(),
              CoordinatorEndpoint())) {
    FT_RETURN_IF_ERROR(CheckCoordinatorAnswers());
  } else {
    FT_RETURN_IF_ERROR(StartCoordinator());
    say("coordinator started");
  }
  for (int i = 1; i <= workers; ++i) {
    const std::string name = absl::StrCat("w-", i);
    FT_RETURN_IF_ERROR(CheckItIsNotStopped(absl::StrCat("worker ", name),
                                           kWorker, WorkerDir(name)));
    EndIfItDialsAnother(name);
    if (IsThere(name, kWorker, WorkerDir(name), WorkerEndpoint(name))) continue;
    FT_RETURN_IF_ERROR(StartWorker(name));
    say(absl::StrCat("worker ", name, " started"));
  }
  FT_RETURN_IF_ERROR(AwaitWorkers(workers));
  const nlohmann::json endpoint = ReadEndpoint(CoordinatorEndpoint());
  RunningService service{.client_address = endpoint.value("client_address", ""),
                         .http_address = endpoint.value("http_address", "")};
  for (const DaemonProcess& worker : OwnDaemons({kWorker})) {
    service.workers.push_back(BaseName(worker.data_dir));
  }
  std::sort(service.workers.begin(), service.workers.end());
  return service;
}

absl::StatusOr<std::vector<std::string>> StopService(
    absl::Duration grace, void (*say)(const std::string&)) {
  FT_ASSIGN_OR_RETURN(const UniqueFd lock, LockService(say));
  const std::vector<DaemonProcess> processes =
      OwnDaemons({kWorker, kCoordinator});
  if (processes.empty()) say("nothing was up");
  // Who stands still hears nothing else.
  for (const DaemonProcess& process : processes) kill(process.pid, SIGCONT);
  const auto is_worker = [](const DaemonProcess& process) {
    return process.program == kWorker;
  };
  absl::Duration worker_grace = grace;
  if (std::any_of(processes.begin(), processes.end(), is_worker) &&
      !IsCoordinatorThere()) {
    // Nobody would take what they store. Killed, they leave their snapshots.
    say("no coordinator answers: the workers are ended at once");
    worker_grace = absl::ZeroDuration();
  }
  std::vector<std::string> stopped;
  // Workers first, all at once: they store what they can while the coordinator
  // lives. Each is asked once: a second request means "at once".
  for (const char* program : {kWorker, kCoordinator}) {
    for (const DaemonProcess& process : processes) {
      if (process.program == program) kill(process.pid, SIGTERM);
    }
    const absl::Time deadline =
        absl::Now() + (program == kWorker ? worker_grace : grace);
    for (const DaemonProcess& process : processes) {
      if (process.program != program) continue;
      EndProcess(process.pid, deadline - absl::Now());
      stopped.push_back(BaseName(process.data_dir));
      say(absl::StrCat(stopped.back(), " stopped"));
    }
  }
  return stopped;
}

}  // namespace ft
