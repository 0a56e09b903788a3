// SPDX-License-Identifier: Apache-2.0

#include "worker/daemon.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/digest.h"
#include "common/failpoint.h"
#include "common/file.h"
#include "common/id.h"
#include "common/log.h"
#include "common/status.h"
#include "common/token.h"
#include "common/version.h"
#include "worker/inventory.h"

namespace ft {
namespace {

constexpr absl::Duration kHeartbeat = absl::Seconds(1);
// Of heartbeats on a slow way; older ones are given up.
constexpr size_t kMostQuestions = 60;
// As long as a restart of the coordinator may take.
constexpr absl::Duration kFlushTimeout = absl::Seconds(15);
// Between looks at the models, and at what the disk has left.
constexpr absl::Duration kDiskScan = absl::Seconds(2);
// From the start of a rank until its successor is loaded.
constexpr absl::Duration kWarmRefill = absl::Seconds(2);
// Bulk that the coordinator does not take: the oldest goes first.
constexpr size_t kMaxUnacknowledgedReports = 20'000;

std::vector<std::string> NamesOf(const std::vector<v1::ModelInfo>& models) {
  std::vector<std::string> names;
  for (const v1::ModelInfo& model : models) {
    names.push_back(model.name() + "@" + model.digest());
  }
  return names;
}

// One daemon a data folder.
absl::StatusOr<UniqueFd> LockFolder(const std::string& dir) {
  const std::string path = JoinPath(dir, "lock");
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.is_open()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(dir, " belongs to another running ft-worker"));
  }
  return fd;
}

// A rank of a daemon that was killed dies with it, but for a moment more it may
// put files into what is removed.
absl::Status RemoveLeftovers(const std::string& dir) {
  constexpr int kTries = 20;
  for (int tries = 1;; ++tries) {
    const absl::Status removed = RemoveTree(dir);
    if (removed.ok() || tries == kTries) return removed;
    absl::SleepFor(absl::Milliseconds(100));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(WorkerConfig config) {
  if (!IsLabel(config.worker_id)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--worker_id \"", config.worker_id,
                     "\" is no name; use a-z, 0-9 and -, at most 63 "
                     "characters"));
  }
  if (access(config.train_program.c_str(), X_OK) != 0) {
    return ErrnoStatus(errno,
                       absl::StrCat("--train_program ", config.train_program));
  }
  // Ranks work in folders of their own.
  for (std::string* path : {&config.data_dir, &config.model_root,
                            &config.train_program, &config.snapshot_dir}) {
    if (!path->empty()) *path = std::filesystem::absolute(*path);
  }
  FT_RETURN_IF_ERROR(MakeDirs(config.data_dir, 0700));
  FT_ASSIGN_OR_RETURN(UniqueFd lock, LockFolder(config.data_dir));
  // What a daemon that died had begun belongs to nobody.
  for (const std::string& dir : {config.jobs_dir(), config.temp_dir()}) {
    FT_RETURN_IF_ERROR(RemoveLeftovers(dir));
    FT_RETURN_IF_ERROR(MakeDirs(dir, 0700));
  }
  FT_RETURN_IF_ERROR(MakeDirs(config.cache_dir(), 0700));
  FT_ASSIGN_OR_RETURN(const std::string token,
                      ReadTokenFile(config.token_file));
  std::unique_ptr<Daemon> daemon(
      new Daemon(std::move(config), token, std::move(lock)));
  Daemon* const self = daemon.get();
  FT_ASSIGN_OR_RETURN(
      daemon->http_,
      HttpServer::Create(
          {.address = daemon->config_.http_address,
           .is_ready = [self] { return self->client_->is_connected(); },
           .metrics =
               [self] {
                 self->UpdateMetrics();
                 return self->metrics_.Text();
               },
           .is_allowed =
               [token](const std::string& given) {
                 return EqualInConstantTime(given, token);
               }}));
  return daemon;
}

Daemon::Daemon(WorkerConfig config, std::string token, UniqueFd lock)
    : config_(std::move(config)),
      token_(std::move(token)),
      lock_(std::move(lock)),
      instance_id_(RandomHex(16)),
      memory_events_(
          FindMemoryEvents(ReadFile("/proc/self/cgroup", 1 << 16).value_or(""),
                           "/sys/fs/cgroup")),
      reserve_({.path = config_.reserve_file(),
                .bytes = config_.reserve_bytes,
                .free_bytes = [this] { return FreeBytes(config_.data_dir); }}),
      transfer_(std::make_unique<ArtifactTransfer>(
          MakeChannel(config_.coordinator), token_, config_.temp_dir())),
      inputs_(std::make_unique<InputCache>(config_.cache_dir(), *transfer_)),
      model_root_(config_.model_root) {
  {
    absl::MutexLock lock_models(&model_mutex_);
    std::vector<std::string> problems;
    models_ = model_root_.List(&problems);
    for (const std::string& problem : problems) {
      Log(LogSeverity::kWarn, "worker", "model not offered",
          {{"why", problem}});
    }
  }
  TrimCache();
  reserve_.Keep();
  OpenSnapshots();
  if (config_.warm_ranks) {
    warm_ranks_ = std::make_unique<WarmRanks>(
        WarmRanks::Options{.program = config_.train_program,
                           .workspace = config_.jobs_dir(),
                           .count = config_.slots,
                           .refill_delay = config_.Scaled(kWarmRefill)},
        spawner_);
  }
  client_ = std::make_unique<CoordinatorClient>(
      config_, token_,
      CoordinatorClient::Callbacks{
          .attach = [this] { return MakeAttach(); },
          .on_message =
              [this](const v1::ConnectResponse& message) {
                OnMessage(message);
              },
          .on_report_ack =
              [this](const v1::ReportResponse& ack) {
                absl::MutexLock hold(&mutex_);
                const auto held = attempts_.find(ack.epoch());
                if (held == attempts_.end()) return;
                std::deque<v1::ReportRequest>& reports = held->second.reports;
                while (!reports.empty() && reports.front().seq() <= ack.seq()) {
                  reports.pop_front();
                }
              },
          .unacknowledged =
              [this] {
                absl::MutexLock hold(&mutex_);
                std::deque<v1::ReportRequest> all;
                for (const auto& [epoch, held] : attempts_) {
                  all.insert(all.end(), held.reports.begin(),
                             held.reports.end());
                }
                return all;
              }});
  heartbeat_thread_ = std::thread([this] { HeartbeatLoop(); });
  farewell_thread_ = std::thread([this] { FarewellLoop(); });
  disk_thread_ = std::thread([this] { DiskLoop(); });
}

// Snapshots are worth having, not needed: without a place for them jobs go back
// to their checkpoints.
void Daemon::OpenSnapshots() {
  const std::string dir = config_.snapshot_dir.empty()
                              ? DefaultSnapshotDir(config_.data_dir)
                              : config_.snapshot_dir;
  absl::StatusOr<SnapshotStore> store =
      SnapshotStore::Open(dir, config_.snapshot_bytes);
  if (store.ok()) {
    snapshots_ = *std::move(store);
    return;
  }
  Log(LogSeverity::kWarn, "worker",
      "no local snapshots: a rank's death costs the steps since the last "
      "checkpoint",
      {{"why", store.status().message()}});
}

Daemon::~Daemon() {
  std::map<uint64_t, Held> attempts;
  std::vector<std::unique_ptr<AttemptRunner>> leaving;
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
    attempts.swap(attempts_);
    leaving.swap(leaving_);
  }
  for (auto& [epoch, held] : attempts) held.runner->Stop(/*is_fenced=*/true);
  attempts.clear();
  leaving.clear();
  warm_ranks_.reset();
  heartbeat_thread_.join();
  farewell_thread_.join();
  disk_thread_.join();
  http_.reset();
  client_.reset();
}

v1::Attach Daemon::MakeAttach() {
  v1::Attach attach;
  attach.set_worker_id(config_.worker_id);
  attach.set_instance_id(instance_id_);
  attach.set_boot_id(BootId());
  attach.set_version(std::string(Version()));
  *attach.mutable_inventory() = TakeInventory(config_);
  {
    absl::MutexLock lock(&model_mutex_);
    attach.mutable_models()->Add(models_.begin(), models_.end());
  }
  absl::MutexLock lock(&mutex_);
  if (snapshots_.has_value()) {
    for (const v1::SnapshotShard& shard : snapshots_->Shards()) {
      *attach.add_snapshots() = shard;
    }
  }
  for (const auto& [epoch, held] : attempts_) {
    v1::AttachedAttempt* attempt = attach.add_attempts();
    attempt->set_job_id(held.runner->job_id());
    attempt->set_epoch(epoch);
    attempt->set_state(held.runner->state());
    attempt->set_step(held.runner->step());
    attempt->set_last_event_seq(held.last_event_seq);
  }
  return attach;
}

void Daemon::OnMessage(const v1::ConnectResponse& message) {
  const auto with_attempt = [this](uint64_t epoch, const auto& act) {
    absl::MutexLock lock(&mutex_);
    const auto held = attempts_.find(epoch);
    if (held != attempts_.end()) act(held->second);
  };
  switch (message.message_case()) {
    case v1::ConnectResponse::kAttached:
      return OnAttached(message.attached());
    case v1::ConnectResponse::kHeartbeatReply:
      return OnHeartbeatReply(message.heartbeat_reply());
    case v1::ConnectResponse::kStartAttempt:
      return StartAttempt(message.start_attempt());
    case v1::ConnectResponse::kOpenBarrier:
      return with_attempt(message.open_barrier().epoch(),
                          [](Held& held) { held.runner->OpenBarrier(); });
    case v1::ConnectResponse::kYield:
      return with_attempt(message.yield().epoch(), [&](Held& held) {
        held.runner->Yield(absl::Milliseconds(message.yield().grace_ms()));
      });
    case v1::ConnectResponse::kStop:
      return with_attempt(message.stop().epoch(), [](Held& held) {
        held.runner->Stop(/*is_fenced=*/false);
      });
    case v1::ConnectResponse::kFence:
      return Fence(message.fence().epoch());
    case v1::ConnectResponse::kPublish:
      return with_attempt(message.publish().epoch(), [&](Held& held) {
        held.runner->Publish(message.publish().artifact_name());
      });
    case v1::ConnectResponse::kRendezvousReply:
      return with_attempt(message.rendezvous_reply().epoch(), [&](Held& held) {
        held.runner->OnRendezvous(message.rendezvous_reply());
      });
    case v1::ConnectResponse::kEventAck:
      return with_attempt(message.event_ack().epoch(), [&](Held& held) {
        while (!held.events.empty() &&
               held.events.front().seq() <= message.event_ack().seq()) {
          held.events.pop_front();
        }
      });
    case v1::ConnectResponse::MESSAGE_NOT_SET:
      return;
  }
}

void Daemon::OnHeartbeatReply(const v1::HeartbeatReply& reply) {
  const auto& valid = reply.valid_epochs();
  std::vector<uint64_t> fenced;
  {
    absl::MutexLock lock(&mutex_);
    while (!questions_.empty() && questions_.front().seq < reply.seq()) {
      questions_.pop_front();
    }
    if (questions_.empty() || questions_.front().seq != reply.seq()) return;
    // What was asked for, no more: an order may have come since.
    for (const uint64_t epoch : questions_.front().epochs) {
      if (std::find(valid.begin(), valid.end(), epoch) == valid.end()) {
        fenced.push_back(epoch);
      }
    }
    DropSnapshots(questions_.front(), reply);
    questions_.pop_front();
  }
  for (const uint64_t epoch : fenced) Fence(epoch);
}

// Those of jobs that have left this worker.
void Daemon::DropSnapshots(const Question& question,
                           const v1::HeartbeatReply& reply) {
  std::set<std::string> kept(reply.kept_snapshot_jobs().begin(),
                             reply.kept_snapshot_jobs().end());
  // What came since the question, or whose ranks may still be here.
  for (const auto& [epoch, held] : attempts_) {
    kept.insert(held.runner->job_id());
  }
  for (const std::string& job : question.jobs) {
    if (!kept.contains(job)) snapshots_->Drop(job);
  }
}

void Daemon::OnAttached(const v1::Attached& attached) {
  Log(LogSeverity::kInfo, "worker", "attached",
      {{"coordinator", config_.coordinator},
       {"incarnation", attached.incarnation()}});
  Pass(Failpoint::kWorkerAttached);
  absl::MutexLock lock(&mutex_);
  // Everything is said again: orders and updates are idempotent by epoch.
  for (auto& [epoch, held] : attempts_) {
    for (const v1::RendezvousSet& key : held.keys) {
      v1::ConnectRequest request;
      *request.mutable_rendezvous_set() = key;
      client_->Send(std::move(request));
    }
    for (const v1::AttemptUpdate& update : held.updates) {
      v1::ConnectRequest request;
      *request.mutable_attempt_update() = update;
      client_->Send(std::move(request));
    }
    for (v1::ConnectRequest& question : held.runner->OpenQuestions()) {
      client_->Send(std::move(question));
    }
    const auto durable = attached.durable_event_seq().find(epoch);
    for (const v1::WorkerEvent& event : held.events) {
      if (durable != attached.durable_event_seq().end() &&
          event.seq() <= durable->second) {
        continue;
      }
      v1::ConnectRequest request;
      *request.mutable_event() = event;
      client_->Send(std::move(request));
    }
  }
  if (draining_) {
    v1::ConnectRequest request;
    request.mutable_drain();
    client_->Send(std::move(request));
  }
}

void Daemon::StartAttempt(const v1::StartAttempt& order) {
  absl::MutexLock lock(&mutex_);
  const auto known = attempts_.find(order.epoch());
  if (known != attempts_.end()) {
    // Sent again after a break: what was said of it is said again.
    for (const v1::AttemptUpdate& update : known->second.updates) {
      v1::ConnectRequest request;
      *request.mutable_attempt_update() = update;
      client_->Send(std::move(request));
    }
    return;
  }
  if (closing_) return;
  Log(LogSeverity::kInfo, "worker", "attempt starts",
      {{"job", order.job_id()}, {"epoch", order.epoch()}});
  Pass(Failpoint::kOrderTaken);
  Held& held = attempts_[order.epoch()];
  held.runner = std::make_unique<AttemptRunner>(order, HostFor(order.epoch()));
}

void Daemon::Fence(uint64_t epoch) {
  std::unique_ptr<AttemptRunner> runner;
  {
    absl::MutexLock lock(&mutex_);
    const auto held = attempts_.find(epoch);
    if (held == attempts_.end()) return;
    runner = std::move(held->second.runner);
    attempts_.erase(held);
    runner->Stop(/*is_fenced=*/true);
    // Its own threads may be in here.
    leaving_.push_back(std::move(runner));
  }
  Log(LogSeverity::kInfo, "worker", "attempt left", {{"epoch", epoch}});
}

AttemptHost Daemon::HostFor(uint64_t epoch) {
  AttemptHost host;
  host.config = &config_;
  host.spawner = &spawner_;
  host.transfer = transfer_.get();
  host.inputs = inputs_.get();
  host.warm_ranks = warm_ranks_.get();
  host.reserve = &reserve_;
  host.snapshots = snapshots_.has_value() ? &*snapshots_ : nullptr;
  host.take_oom_kills = [this] { return memory_events_.Take(absl::Now()); };
  host.find_model = [this](const std::string& name) { return FindModel(name); };
  host.update = [this, epoch](const v1::AttemptUpdate& update) {
    absl::MutexLock lock(&mutex_);
    const auto held = attempts_.find(epoch);
    if (held == attempts_.end()) return;
    held->second.updates.push_back(update);
    v1::ConnectRequest request;
    *request.mutable_attempt_update() = update;
    client_->Send(std::move(request));
  };
  host.event = [this, epoch](const v1::Event& event,
                             const v1::StepMetrics* metrics) {
    absl::MutexLock lock(&mutex_);
    const auto held = attempts_.find(epoch);
    if (held == attempts_.end()) return;
    v1::ConnectRequest request;
    v1::WorkerEvent& message = *request.mutable_event();
    message.set_job_id(held->second.runner->job_id());
    message.set_epoch(epoch);
    message.set_seq(++held->second.last_event_seq);
    *message.mutable_event() = event;
    message.mutable_event()->set_epoch(epoch);
    message.mutable_event()->set_job_id(message.job_id());
    if (metrics != nullptr) *message.mutable_metrics() = *metrics;
    held->second.events.push_back(message);
    client_->Send(std::move(request));
  };
  host.step = [this, epoch](const v1::StepMetrics& step) {
    absl::MutexLock lock(&mutex_);
    const auto held = attempts_.find(epoch);
    if (held == attempts_.end()) return;
    *held->second.pending.add_metrics() = step;
    FlushReports(epoch);
  };
  host.log = [this, epoch](const v1::LogLine& line) {
    absl::MutexLock lock(&mutex_);
    const auto held = attempts_.find(epoch);
    if (held == attempts_.end()) return;
    *held->second.pending.add_logs() = line;
    if (held->second.pending.logs_size() >= 200) FlushReports(epoch);
  };
  host.flush = [this, epoch] {
    absl::MutexLock lock(&mutex_);
    if (attempts_.find(epoch) == attempts_.end()) return true;
    FlushReports(epoch);
    const auto is_taken = [this,
                           epoch]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      const auto held = attempts_.find(epoch);
      return held == attempts_.end() ||
             (held->second.reports.empty() && held->second.events.empty());
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&is_taken), kFlushTimeout);
  };
  host.send = [this, epoch](const v1::ConnectRequest& request) {
    absl::MutexLock lock(&mutex_);
    const auto held = attempts_.find(epoch);
    if (held == attempts_.end()) return;
    if (request.has_rendezvous_set()) {
      held->second.keys.push_back(request.rendezvous_set());
    }
    client_->Send(request);
  };
  return host;
}

void Daemon::FlushReports(uint64_t epoch) {
  Held& held = attempts_.at(epoch);
  if (held.pending.metrics().empty() && held.pending.logs().empty()) return;
  v1::ReportRequest report = std::move(held.pending);
  held.pending = {};
  report.set_worker_id(config_.worker_id);
  report.set_job_id(held.runner->job_id());
  report.set_epoch(epoch);
  report.set_seq(++held.last_report_seq);
  held.reports.push_back(report);
  if (held.reports.size() > kMaxUnacknowledgedReports) {
    held.reports.pop_front();
  }
  client_->Report(std::move(report));
}

void Daemon::HeartbeatLoop() {
  while (true) {
    v1::ConnectRequest request;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&closing_),
                              config_.Scaled(kHeartbeat));
      if (closing_) return;
      v1::Heartbeat& beat = *request.mutable_heartbeat();
      beat.set_seq(++heartbeat_seq_);
      Question& question = questions_.emplace_back();
      question.seq = heartbeat_seq_;
      if (questions_.size() > kMostQuestions) questions_.pop_front();
      for (const auto& [epoch, held] : attempts_) {
        beat.add_epochs(epoch);
        question.epochs.push_back(epoch);
        FlushReports(epoch);
      }
      const absl::StatusOr<int64_t> free_bytes = FreeBytes(config_.data_dir);
      if (free_bytes.ok()) beat.set_disk_free_bytes(*free_bytes);
      if (snapshots_.has_value()) {
        for (const std::string& job : snapshots_->Jobs()) {
          question.jobs.insert(job);
          const auto shards = snapshots_->Shards(job);
          beat.mutable_snapshots()->Add(shards.begin(), shards.end());
          if (!shards.empty()) continue;
          // Asks for it all the same.
          beat.add_snapshots()->set_job_id(job);
        }
      }
      // In here, so that what an attempt says at its end comes after what this
      // says of its snapshots.
      client_->Send(std::move(request));
    }
    memory_events_.Look(absl::Now());
  }
}

// An attempt may take its time to go, for it may be fetching its inputs; no
// heartbeat waits for that.
void Daemon::FarewellLoop() {
  const auto wake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closing_ || !leaving_.empty();
  };
  while (true) {
    std::vector<std::unique_ptr<AttemptRunner>> leaving;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&wake));
      if (closing_) return;
      leaving.swap(leaving_);
    }
    leaving.clear();
    TrimCache();
  }
}

void Daemon::TrimCache() {
  absl::MutexLock lock(&mutex_);
  if (!attempts_.empty() || !leaving_.empty()) return;
  const absl::Status status = inputs_->Trim(config_.cache_bytes);
  if (!status.ok()) {
    Log(LogSeverity::kWarn, "worker", "cache not trimmed",
        {{"error", status.message()}});
  }
}

void Daemon::DiskLoop() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&closing_),
                              config_.Scaled(kDiskScan));
      if (closing_) return;
    }
    reserve_.Keep();
    TellNewModels();
  }
}

void Daemon::TellNewModels() {
  v1::ConnectRequest request;
  {
    absl::MutexLock lock(&model_mutex_);
    std::vector<v1::ModelInfo> models = model_root_.List();
    if (NamesOf(models) == NamesOf(models_)) return;
    models_ = std::move(models);
    request.mutable_models()->mutable_models()->Add(models_.begin(),
                                                    models_.end());
  }
  client_->Send(std::move(request));
}

absl::StatusOr<std::pair<std::string, std::string>> Daemon::FindModel(
    const std::string& name) {
  absl::MutexLock lock(&model_mutex_);
  for (const v1::ModelInfo& model : models_) {
    if (model.name() == name) {
      return std::pair(model_root_.PathOf(name), model.digest());
    }
  }
  return absl::NotFoundError(
      absl::StrCat("this worker holds no model named ", name));
}

void Daemon::UpdateMetrics() {
  metrics_.Set("ft_build_info", "Which build this is.", 1,
               {{"program", "ft-worker"},
                {"version", std::string(Version())},
                {"revision", std::string(Revision())}});
  metrics_.Set("ft_worker_connected",
               "Whether the coordinator is attached (1) or not (0).",
               client_->is_connected() ? 1 : 0);
  const absl::StatusOr<int64_t> free_bytes = FreeBytes(config_.data_dir);
  if (free_bytes.ok()) {
    metrics_.Set("ft_worker_disk_free_bytes",
                 "Free bytes where workspaces lie.",
                 static_cast<double>(*free_bytes));
  }
  metrics_.Set("ft_worker_disk_reserve_bytes",
               "Kept back on that disk for when it is full.",
               static_cast<double>(reserve_.kept_bytes()));
  metrics_.Set("ft_worker_warm_ranks",
               "Processes that stand by for the next ranks.",
               warm_ranks_ == nullptr ? 0 : warm_ranks_->count());
  absl::MutexLock lock(&mutex_);
  double spool = 0;
  std::map<std::string, int64_t> steps;
  for (const auto& [epoch, held] : attempts_) {
    for (const v1::ReportRequest& report : held.reports) {
      spool += static_cast<double>(report.ByteSizeLong());
    }
    // Only rank 0 reports steps.
    if (held.runner->step() > 0) {
      steps[held.runner->job_id()] = held.runner->step();
    }
  }
  const std::string name = "ft_worker_train_step";
  for (const auto& [job, step] : steps) {
    metrics_.Set(name, "Last step that a rank here reported.",
                 static_cast<double>(step), {{"job", job}});
  }
  for (const auto& [job, step] : shown_steps_) {
    if (!steps.contains(job)) metrics_.RemoveGauge(name, {{"job", job}});
  }
  shown_steps_ = std::move(steps);
  metrics_.Set("ft_worker_spool_bytes",
               "Reports that the coordinator has not acknowledged.", spool);
}

void Daemon::Drain(absl::Duration grace) {
  const absl::Time deadline = absl::Now() + grace;
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    v1::ConnectRequest request;
    request.mutable_drain();
    client_->Send(std::move(request));
    for (auto& [epoch, held] : attempts_) held.runner->Yield(grace);
  }
  const auto all_left = [this] {
    absl::MutexLock lock(&mutex_);
    return std::all_of(
        attempts_.begin(), attempts_.end(),
        [](const auto& entry) { return entry.second.runner->is_over(); });
  };
  while (!all_left() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  // Those who left have a checkpoint; where the coordinator does not know of
  // it, the snapshot is all there is.
  if (snapshots_.has_value() && all_left() && client_->is_connected()) {
    snapshots_->DropAll();
  }
}

}  // namespace ft
