// SPDX-License-Identifier: Apache-2.0

#include "coordinator/coordinator.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failpoint.h"
#include "common/file.h"
#include "common/http_server.h"
#include "common/log.h"
#include "common/status.h"
#include "common/token.h"
#include "coordinator/blob_files.h"
#include "coordinator/grpc_server.h"
#include "coordinator/janitor.h"
#include "coordinator/services.h"
#include "coordinator/spec_checker.h"
#include "coordinator/sqlite_job_store.h"

namespace ft {
namespace {

constexpr int kPoolThreads = 4;
constexpr int kArtifactThreads = 4;
constexpr absl::Duration kShutdownGrace = absl::Seconds(1);

}  // namespace

// In the order of their making; they go in the reverse order.
struct Coordinator::Parts {
  CoordinatorConfig config;
  RealClock clock;
  CoordinatorMetrics metrics;
  EventBus bus;
  std::string admin_token;
  std::string worker_token;
  std::shared_ptr<TokenTable> tokens = std::make_shared<TokenTable>();
  std::unique_ptr<SqliteJobStore> store;
  std::unique_ptr<RunRecords> records;
  std::unique_ptr<BlobFiles> blobs;
  JobSpecChecker checker;
  std::unique_ptr<EffectRouter> router;
  std::unique_ptr<Committer> committer;
  std::unique_ptr<TaskPool> pool;
  std::unique_ptr<TaskPool> artifact_pool;
  std::unique_ptr<JobBook> book;
  std::shared_ptr<grpc::Service> artifacts;
  std::unique_ptr<GrpcServer> clients;
  std::unique_ptr<GrpcServer> workers;
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<Janitor> janitor;

  absl::Status OpenFiles();
  absl::Status StartCore();
  absl::Status Listen();
};

absl::Status Coordinator::Parts::OpenFiles() {
  const std::string& dir = config.data_dir;
  FT_RETURN_IF_ERROR(MakeDirs(dir, 0700));
  // A process before us may have died between a folder and its sync.
  FT_RETURN_IF_ERROR(SyncDir(DirName(dir)));
  FT_ASSIGN_OR_RETURN(store, SqliteJobStore::Open(JoinPath(dir, "state")));
  const std::string token_dir = JoinPath(dir, "tokens");
  FT_RETURN_IF_ERROR(MakeDirs(token_dir, 0700));
  FT_ASSIGN_OR_RETURN(admin_token,
                      ReadOrMakeTokenFile(JoinPath(token_dir, "admin.token")));
  FT_ASSIGN_OR_RETURN(worker_token,
                      ReadOrMakeTokenFile(JoinPath(token_dir, "worker.token")));
  tokens->Add(admin_token, Role::kAdmin);
  tokens->Add(worker_token, Role::kWorker);
  const std::string jobs_dir = JoinPath(dir, "jobs");
  FT_RETURN_IF_ERROR(MakeDirs(jobs_dir, 0700));
  records = std::make_unique<RunRecords>(jobs_dir);
  FT_ASSIGN_OR_RETURN(
      blobs, BlobFiles::Open(JoinPath(dir, "blobs"), JoinPath(dir, "uploads")));
  return SyncDir(dir);
}

absl::Status Coordinator::Parts::StartCore() {
  router = std::make_unique<EffectRouter>(bus, metrics, config.on_fatal);
  pool = std::make_unique<TaskPool>(kPoolThreads);
  artifact_pool = std::make_unique<TaskPool>(kArtifactThreads);
  router->OnJobOver([this](const std::string& job_id, bool deleted) {
    metrics.JobOver(job_id);
    pool->Run([this, job_id, deleted] {
      if (!deleted) {
        records->Close(job_id);
      } else if (const absl::Status gone = records->Remove(job_id);
                 !gone.ok()) {
        Log(LogSeverity::kWarn, "coordinator", "cannot remove records",
            {{"job", job_id}, {"error", gone.message()}});
      }
    });
  });
  FT_ASSIGN_OR_RETURN(committer,
                      Committer::Start(config.timers, *store, clock, *router));
  Pass(Failpoint::kCoordinatorLoaded);
  // What reports have stored since the job's row was written last.
  for (const std::string& job_id : router->LiveJobs()) {
    const absl::StatusOr<int64_t> step = records->LastStep(job_id);
    if (!step.ok()) {
      // Its snapshots are used less; nobody else must suffer.
      Log(LogSeverity::kWarn, "coordinator", "cannot read records",
          {{"job", job_id}, {"error", step.status().message()}});
      continue;
    }
    if (*step == 0) continue;
    ProgressCommand progress{.job_id = job_id};
    progress.progress.emplace().set_step(*step);
    committer->Post({.what = std::move(progress)});
  }
  book = std::make_unique<JobBook>(JobBook::Parts{.store = *store,
                                                  .committer = *committer,
                                                  .router = *router,
                                                  .bus = bus,
                                                  .records = *records,
                                                  .metrics = metrics,
                                                  .checker = checker,
                                                  .blobs = *blobs,
                                                  .pool = *pool});
  artifacts =
      MakeArtifactService(*book, *tokens, *blobs, *artifact_pool, metrics);
  janitor = std::make_unique<Janitor>(*store, *blobs, config.janitor);
  return absl::OkStatus();
}

absl::Status Coordinator::Parts::Listen() {
  const auto on_denied = [this](absl::string_view reason) {
    metrics.AuthDenied(reason);
  };
  FT_ASSIGN_OR_RETURN(
      workers,
      GrpcServer::Start({.address = config.worker_address,
                         .services = {MakeWorkerService(*book), artifacts},
                         .tokens = tokens,
                         .on_denied = on_denied}),
      "--worker_address");
  FT_ASSIGN_OR_RETURN(
      clients,
      GrpcServer::Start(
          {.address = config.client_address,
           .services = {MakeJobService(*book, *tokens, metrics), artifacts,
                        MakeAdminService(*book, *tokens, metrics,
                                         store->incarnation(), clock.Now())},
           .tokens = tokens,
           .on_denied = on_denied}),
      "--client_address");
  HttpServerOptions options;
  options.address = config.http_address;
  options.is_live = [this] { return committer->is_live(); };
  options.is_ready = [this] {
    return committer->is_live() && committer->is_store_writable();
  };
  options.metrics = [this] {
    return metrics.Text(*router, store->FreeBytes().value_or(0));
  };
  options.is_allowed = [this](const std::string& token) {
    return tokens->Find(token).has_value();
  };
  FT_ASSIGN_OR_RETURN(http, HttpServer::Create(std::move(options)),
                      "--http_address");
  for (GrpcServer* server : {clients.get(), workers.get()}) {
    server->SetServing(/*is_ready=*/true, /*is_live=*/true);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(
    CoordinatorConfig config) {
  auto parts = std::make_unique<Parts>();
  parts->config = std::move(config);
  std::unique_ptr<Coordinator> coordinator(new Coordinator(std::move(parts)));
  FT_RETURN_IF_ERROR(coordinator->parts_->OpenFiles());
  FT_RETURN_IF_ERROR(coordinator->parts_->StartCore());
  FT_RETURN_IF_ERROR(coordinator->parts_->Listen());
  return coordinator;
}

Coordinator::Coordinator(std::unique_ptr<Parts> parts)
    : parts_(std::move(parts)) {}

Coordinator::~Coordinator() {
  for (GrpcServer* server : {parts_->clients.get(), parts_->workers.get()}) {
    if (server != nullptr) server->SetServing(false, true);
  }
  if (parts_->router != nullptr) {
    for (const auto& link : parts_->router->Links()) {
      link->Close(absl::UnavailableError("the coordinator is going down"));
    }
  }
  for (GrpcServer* server : {parts_->clients.get(), parts_->workers.get()}) {
    if (server != nullptr) server->Shutdown(kShutdownGrace);
  }
  // Calls have ended; now their work, then what it used.
  parts_->http.reset();
  parts_->janitor.reset();
  parts_->artifact_pool.reset();
  parts_->committer.reset();
  parts_->pool.reset();
}

const std::string& Coordinator::client_address() const {
  return parts_->clients->address();
}
const std::string& Coordinator::worker_address() const {
  return parts_->workers->address();
}
const std::string& Coordinator::http_address() const {
  return parts_->http->address();
}
int64_t Coordinator::incarnation() const {
  return parts_->store->incarnation();
}
const std::string& Coordinator::admin_token() const {
  return parts_->admin_token;
}
const std::string& Coordinator::worker_token() const {
  return parts_->worker_token;
}
JobBook& Coordinator::book() { return *parts_->book; }

}  // namespace ft
