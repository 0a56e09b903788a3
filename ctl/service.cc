// SPDX-License-Identifier: Apache-2.0

#include "ctl/service.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/address.h"
#include "common/file.h"
#include "common/status.h"
#include "ctl/client.h"
#include "ctl/paths.h"

namespace ft {
namespace {

constexpr absl::Duration kReadyTimeout = absl::Seconds(60);

nlohmann::json ReadEndpoint(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, 1 << 16);
  if (!text.ok()) return nullptr;
  return nlohmann::json::parse(*text, nullptr, false);
}

std::string WorkerEndpoint(const std::string& name) {
  return JoinPath(ServiceDir(), name + ".json");
}

// The process of an endpoint file, if it still is one of ours: pids come back.
pid_t PidOf(const std::string& endpoint, absl::string_view program) {
  const nlohmann::json value = ReadEndpoint(endpoint);
  if (!value.is_object() || !value.contains("pid") ||
      !value["pid"].is_number_integer()) {
    return 0;
  }
  const auto pid = value["pid"].get<pid_t>();
  const absl::StatusOr<std::string> command =
      ReadFile(absl::StrCat("/proc/", pid, "/cmdline"), 1 << 16);
  const bool is_ours = pid > 0 && command.ok() &&
                       absl::StrContains(*command, program) &&
                       absl::StrContains(*command, ServiceDir());
  return is_ours ? pid : 0;
}

// Starts a daemon that lives on without us; what it says goes to a log file.
absl::Status Spawn(const std::vector<std::string>& words,
                   const std::string& log) {
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, "fork");
  if (pid == 0) {
    if (fork() != 0) _exit(0);  // The daemon is nobody's child.
    setsid();
    const int null = open("/dev/null", O_RDONLY);
    const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(null, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    for (int fd = 3; fd < 1024; ++fd) close(fd);
    std::vector<char*> argv;
    for (const std::string& word : words) {
      argv.push_back(const_cast<char*>(word.c_str()));
    }
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  waitpid(pid, nullptr, 0);
  return absl::OkStatus();
}

std::string LastLines(const std::string& log) {
  const absl::StatusOr<std::string> text = ReadFile(log, 64 << 20);
  if (!text.ok()) return "";
  const size_t from = text->size() > 600 ? text->size() - 600 : 0;
  return absl::StrCat("\n", text->substr(from));
}

// Waits until `is_ready`, or says what the log of the daemon ends with.
template <typename Ready>
absl::Status WaitUntil(const std::string& what, const std::string& log,
                       const Ready& is_ready) {
  const absl::Time deadline = absl::Now() + kReadyTimeout;
  while (!is_ready()) {
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          what, " is not ready; its log ", log, " ends with:", LastLines(log)));
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  return absl::OkStatus();
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
  // A stale file would name a dead port.
  FT_RETURN_IF_ERROR(RemoveFile(CoordinatorEndpoint()));
  FT_RETURN_IF_ERROR(Spawn(
      {JoinPath(ProgramDir(), "ft-coordinator"), "--data_dir", CoordinatorDir(),
       "--client_address", FormerAddress(former, "client_address"),
       "--worker_address", FormerAddress(former, "worker_address"),
       "--http_address", FormerAddress(former, "http_address"),
       "--endpoint_file", CoordinatorEndpoint()},
      log));
  return WaitUntil("the coordinator", log,
                   [] { return Exists(CoordinatorEndpoint()); });
}

absl::Status StartWorker(const std::string& name) {
  const nlohmann::json endpoint = ReadEndpoint(CoordinatorEndpoint());
  const std::string log = JoinPath(ServiceDir(), name + ".log");
  FT_RETURN_IF_ERROR(RemoveFile(WorkerEndpoint(name)));
  FT_RETURN_IF_ERROR(Spawn(
      {JoinPath(ProgramDir(), "ft-worker"), "--data_dir",
       JoinPath(ServiceDir(), name), "--coordinator",
       endpoint.value("worker_address", ""), "--token_file", WorkerTokenFile(),
       "--worker_id", name, "--model_root", ModelRootDir(), "--train_program",
       JoinPath(ProgramDir(), "ft-train"), "--endpoint_file",
       WorkerEndpoint(name)},
      log));
  return WaitUntil(absl::StrCat("worker ", name), log,
                   [&] { return Exists(WorkerEndpoint(name)); });
}

// Whether the worker still dials this coordinator: after a restart of the
// coordinator on another port it must be started anew.
bool DialsCurrent(pid_t pid) {
  const nlohmann::json endpoint = ReadEndpoint(CoordinatorEndpoint());
  const absl::StatusOr<std::string> command =
      ReadFile(absl::StrCat("/proc/", pid, "/cmdline"), 1 << 16);
  return command.ok() && endpoint.is_object() &&
         absl::StrContains(*command, endpoint.value("worker_address", "?"));
}

void StopProcess(pid_t pid, absl::Duration grace) {
  kill(pid, SIGTERM);
  const absl::Time deadline = absl::Now() + grace;
  while (kill(pid, 0) == 0 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  if (kill(pid, 0) == 0) kill(pid, SIGKILL);
}

// One `up` or `down` at a time.
absl::StatusOr<UniqueFd> LockService() {
  FT_RETURN_IF_ERROR(MakeDirs(ServiceDir(), 0700));
  const std::string path = JoinPath(ServiceDir(), "lock");
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError("another ftctl up or down is at work");
  }
  return fd;
}

}  // namespace

std::vector<ServiceProcess> LivingProcesses() {
  std::vector<ServiceProcess> processes;
  if (const pid_t pid = PidOf(CoordinatorEndpoint(), "ft-coordinator")) {
    processes.push_back({pid, "coordinator"});
  }
  const absl::StatusOr<std::vector<std::string>> names = ListDir(ServiceDir());
  if (!names.ok()) return processes;
  for (const std::string& file : *names) {
    if (!absl::StartsWith(file, "w-") || !absl::EndsWith(file, ".json")) {
      continue;
    }
    const std::string name = file.substr(0, file.size() - 5);
    if (const pid_t pid = PidOf(WorkerEndpoint(name), "ft-worker")) {
      processes.push_back({pid, name});
    }
  }
  return processes;
}

absl::Status StartService(int workers, void (*say)(const std::string&)) {
  FT_ASSIGN_OR_RETURN(const UniqueFd lock, LockService());
  FT_RETURN_IF_ERROR(MakeDirs(ModelRootDir()));
  if (PidOf(CoordinatorEndpoint(), "ft-coordinator") == 0) {
    FT_RETURN_IF_ERROR(StartCoordinator());
    say("coordinator started");
  }
  for (int i = 1; i <= workers; ++i) {
    const std::string name = absl::StrCat("w-", i);
    const pid_t pid = PidOf(WorkerEndpoint(name), "ft-worker");
    if (pid != 0 && DialsCurrent(pid)) continue;
    if (pid != 0) StopProcess(pid, absl::Seconds(5));
    FT_RETURN_IF_ERROR(StartWorker(name));
    say(absl::StrCat("worker ", name, " started"));
  }
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                      Client::Connect({}));
  return WaitUntil("the service", JoinPath(ServiceDir(), "coordinator.log"),
                   [&] {
                     const auto list = client->ListWorkers();
                     if (!list.ok()) return false;
                     int ready = 0;
                     for (const v1::WorkerInfo& worker : list->workers()) {
                       ready += worker.state() == v1::WORKER_STATE_READY;
                     }
                     return ready >= workers;
                   });
}

absl::Status StopService(absl::Duration grace,
                         void (*say)(const std::string&)) {
  FT_ASSIGN_OR_RETURN(const UniqueFd lock, LockService());
  std::vector<ServiceProcess> processes = LivingProcesses();
  // Workers first, all at once: they store what they can while the coordinator
  // lives.
  for (const ServiceProcess& process : processes) {
    if (process.name != "coordinator") kill(process.pid, SIGTERM);
  }
  for (const bool coordinator : {false, true}) {
    for (const ServiceProcess& process : processes) {
      if ((process.name == "coordinator") != coordinator) continue;
      StopProcess(process.pid, grace);
      say(absl::StrCat(process.name, " stopped"));
    }
  }
  return absl::OkStatus();
}

}  // namespace ft
