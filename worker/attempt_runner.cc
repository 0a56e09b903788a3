// SPDX-License-Identifier: Apache-2.0

#include "worker/attempt_runner.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "artifact/manifest.h"
#include "common/digest.h"
#include "common/failpoint.h"
#include "common/file.h"
#include "common/grpc_status.h"
#include "common/id.h"
#include "common/log.h"
#include "common/no_space.h"
#include "common/shared_memory.h"
#include "common/status.h"

namespace ft {
namespace {

// A rank that says nothing for so long hangs: at least this, and ten of its
// longest steps (an evaluation or a checkpoint lies between two steps).
constexpr absl::Duration kLeastHang = absl::Minutes(5);
constexpr int kHangSteps = 10;
// Between tries while the coordinator is away.
constexpr absl::Duration kUploadPause = absl::Seconds(1);

// Held while the folder of a job is made or removed: an attempt may leave while
// the next one of the same job comes.
ABSL_CONST_INIT absl::Mutex job_dirs_mutex(absl::kConstInit);

absl::Status MakeAttemptDir(const std::string& dir) {
  FT_RETURN_IF_ERROR(RemoveTree(dir));
  absl::MutexLock lock(&job_dirs_mutex);
  return MakeDirs(dir, 0700);
}

void RemoveAttemptDir(const std::string& dir) {
  // Fails only where nobody could act on it; the next start sweeps.
  RemoveTree(dir).IgnoreError();
  absl::MutexLock lock(&job_dirs_mutex);
  rmdir(DirName(dir).c_str());  // Unless another attempt of the job is here.
}

void Stamp(google::protobuf::Timestamp& stamp) {
  const absl::Time now = absl::Now();
  stamp.set_seconds(absl::ToUnixSeconds(now));
  stamp.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(
      now - absl::FromUnixSeconds(absl::ToUnixSeconds(now)))));
}

v1::AttemptEnded EndedBy(v1::AttemptCause cause, const absl::Status& status) {
  v1::AttemptEnded ended;
  ended.set_cause(cause);
  ended.set_status_code(static_cast<int32_t>(status.code()));
  ended.set_message(std::string(status.message()));
  return ended;
}

constexpr char kNoSpaceCondition[] = "NO_SPACE";

bool IsAboutSpace(const v1::Event& event) {
  const auto type = event.fields().find("type");
  return event.kind() == v1::EVENT_KIND_CONDITION &&
         type != event.fields().end() && type->second == kNoSpaceCondition &&
         event.fields().contains("is_on");
}

bool IsStale(const absl::Status& status) {
  return ReasonOf(status) == "STALE_EPOCH";
}

// A disk is full, ours or the coordinator's.
bool IsFull(const absl::Status& status) {
  return IsNoSpace(status) || ReasonOf(status) == "STORE_FULL";
}

// What another try may find better.
bool IsPassing(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         IsFull(status);
}

}  // namespace

AttemptRunner::AttemptRunner(v1::StartAttempt order, AttemptHost host)
    : order_(std::move(order)),
      host_(std::move(host)),
      dir_(JoinPath(host_.config->jobs_dir(),
                    absl::StrCat(order_.job_id(), "/", order_.epoch()))),
      checkpoints_(NewUploader()) {
  for (const v1::RankPlacement& place : order_.placement().ranks()) {
    if (place.worker_id() == host_.config->worker_id) {
      local_ranks_.push_back(place.rank());
    }
  }
  thread_ = std::thread([this] { Run(); });
}

AttemptRunner::~AttemptRunner() {
  Stop(/*is_fenced=*/true);
  thread_.join();
}

v1::AttemptState AttemptRunner::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

int64_t AttemptRunner::step() const {
  absl::MutexLock lock(&mutex_);
  return step_;
}

bool AttemptRunner::is_over() const {
  absl::MutexLock lock(&mutex_);
  return over_;
}

bool AttemptRunner::Stopping() const {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

bool AttemptRunner::StopsWithin(absl::Duration wait) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&stopping_),
                                 host_.config->Scaled(wait));
}

v1::AttemptUpdate AttemptRunner::NewUpdate() const {
  v1::AttemptUpdate update;
  update.set_job_id(job_id());
  update.set_epoch(epoch());
  return update;
}

void AttemptRunner::SayEnded(v1::AttemptEnded ended) {
  {
    absl::MutexLock lock(&mutex_);
    state_ = v1::ATTEMPT_STATE_ENDED;
    if (ended.last_step() == 0) ended.set_last_step(step_);
    if (fenced_) return;
  }
  if (host_.snapshots != nullptr) {
    for (const v1::SnapshotShard& shard : host_.snapshots->Shards(job_id())) {
      *ended.add_snapshots() = shard;
    }
  }
  v1::AttemptUpdate update = NewUpdate();
  *update.mutable_ended() = std::move(ended);
  host_.update(update);
  Pass(Failpoint::kEndedTold);
}

void AttemptRunner::Warn(const std::string& message) {
  v1::Event event;
  event.set_kind(v1::EVENT_KIND_WARNING);
  event.set_message(message);
  host_.event(event, nullptr);
  Log(LogSeverity::kWarn, "worker", "attempt warns",
      {{"job", job_id()}, {"epoch", epoch()}, {"message", message}});
}

// Returns whether a disk is full. The reserve is not for what is only begun.
bool AttemptRunner::NoteSpace(const absl::Status& status) {
  const bool is_full = IsFull(status);
  absl::MutexLock lock(&space_mutex_);
  meets_full_disk_ = is_full;
  TellSpace(status.message());
  return is_full;
}

// A rank that found no room for a checkpoint or its result tries again soon.
void AttemptRunner::OnSpaceOfRank(int rank, const v1::Event& event) {
  const bool is_full = event.fields().at("is_on") == "true";
  if (is_full) host_.reserve->Release();
  absl::MutexLock lock(&space_mutex_);
  if (is_full) {
    ranks_at_full_disk_.insert(rank);
  } else {
    ranks_at_full_disk_.erase(rank);
  }
  TellSpace(event.message());
}

// Tells when a disk becomes full, and when there is space again. What is
// written at the cost of the reserve does not say that there is.
void AttemptRunner::TellSpace(absl::string_view why_not) {
  const bool is_full = meets_full_disk_ || !ranks_at_full_disk_.empty() ||
                       host_.reserve->is_spent();
  if (is_full == told_no_space_) return;
  told_no_space_ = is_full;
  v1::Event event;
  event.set_kind(v1::EVENT_KIND_CONDITION);
  event.set_message(is_full ? std::string(why_not) : "there is space again");
  (*event.mutable_fields())["type"] = kNoSpaceCondition;
  (*event.mutable_fields())["is_on"] = is_full ? "true" : "false";
  host_.event(event, nullptr);
}

void AttemptRunner::Run() {
  v1::AttemptUpdate accepted = NewUpdate();
  accepted.mutable_accepted();
  host_.update(accepted);

  absl::Status status = Prepare();
  while (NoteSpace(status) && !StopsWithin(kUploadPause)) status = Prepare();
  if (status.ok()) status = StartRanks();
  if (!status.ok()) {
    KillAll();
    SayEnded(EndedBy(absl::IsInvalidArgument(status) || absl::IsNotFound(status)
                         ? v1::ATTEMPT_CAUSE_INVALID_ARGUMENT
                         : v1::ATTEMPT_CAUSE_RANK_EXIT,
                     status));
  } else {
    WaitForRanks();
    End();
  }
  std::map<int, std::unique_ptr<RankLink>> links;
  {
    absl::MutexLock lock(&mutex_);
    links.swap(links_);
  }
  links.clear();  // Joins their threads; they may need the lock.
  checkpoints_->Stop();
  RemoveAttemptDir(dir_);
  absl::MutexLock lock(&mutex_);
  over_ = true;
}

absl::Status AttemptRunner::Prepare() {
  FT_RETURN_IF_ERROR(MakeAttemptDir(dir_));
  const v1::JobSpec& spec = order_.spec();
  start_.set_job_id(job_id());
  start_.set_epoch(epoch());
  start_.set_world(order_.placement().ranks_size());
  *start_.mutable_spec() = spec;
  start_.set_secret(order_.secret());
  start_.set_bind_address("127.0.0.1");

  FT_ASSIGN_OR_RETURN(const auto model, host_.find_model(spec.model().base()));
  start_.set_model_dir(model.first);
  const std::string& want = spec.model().digest();
  if (!want.empty() && want != model.second) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model ", spec.model().base(), " of this worker has digest ",
        model.second.substr(0, 12), "..., the job was begun with ",
        want.substr(0, 12), "..."));
  }
  start_.mutable_spec()->mutable_model()->set_digest(model.second);

  // Ranks read plain files named as the user named them, so that messages about
  // rows name files that the user knows.
  const auto fetch = [&](const std::string& sha256, int64_t bytes,
                         const std::string& path,
                         int index) -> absl::StatusOr<std::string> {
    FT_ASSIGN_OR_RETURN(const std::string blob,
                        host_.inputs->Fetch(sha256, bytes), path);
    const std::string folder = JoinPath(dir_, absl::StrCat("data/", index));
    FT_RETURN_IF_ERROR(MakeDirs(folder, 0700));
    const std::string name = BaseName(path);
    const std::string file =
        JoinPath(folder, IsSafeRelativePath(name) ? name : "data");
    if (symlink(blob.c_str(), file.c_str()) != 0) {
      return ErrnoStatus(errno, absl::StrCat("link ", file));
    }
    return file;
  };
  for (int i = 0; i < spec.data().train_size(); ++i) {
    const v1::Dataset& dataset = spec.data().train(i);
    FT_ASSIGN_OR_RETURN(
        const std::string file,
        fetch(dataset.sha256(), dataset.bytes(), dataset.path(), i));
    start_.add_train_files(file);
  }
  if (const v1::Validation& validation = spec.data().validation();
      validation.has_path()) {
    FT_ASSIGN_OR_RETURN(*start_.mutable_validation_file(),
                        fetch(validation.sha256(), validation.bytes(),
                              validation.path(), spec.data().train_size()));
  }
  Pass(Failpoint::kInputFetched);
  if (!order_.source_manifest_sha256().empty()) {
    const std::string source = JoinPath(dir_, "source");
    FT_RETURN_IF_ERROR(
        host_.inputs->FetchManifest(order_.source_manifest_sha256(), source),
        "checkpoint of step ", order_.source_step());
    start_.set_source_checkpoint_dir(source);
    Pass(Failpoint::kSourceFetched);
  }
  *start_.mutable_source_snapshot_steps() = order_.source_snapshot_steps();
  return absl::OkStatus();
}

// For a gang that is all here; closed otherwise, and where there is not so much
// memory: then the ranks meet by TCP.
UniqueFd AttemptRunner::SharedMemory() {
  const auto ranks = static_cast<int64_t>(local_ranks_.size());
  if (ranks < 2 || order_.placement().ranks_size() != ranks) return UniqueFd();
  absl::StatusOr<UniqueFd> memory = CreateSharedMemory(
      absl::StrCat("ft-", epoch()), ranks * kSharedMemoryBytesPerRank);
  if (memory.ok()) return *std::move(memory);
  Log(LogSeverity::kWarn, "worker", "ranks meet by TCP",
      {{"job", job_id()}, {"why", memory.status().message()}});
  return UniqueFd();
}

absl::Status AttemptRunner::StartRanks() {
  const UniqueFd shared_memory = SharedMemory();
  for (const int rank : local_ranks_) {
    if (Stopping()) return absl::CancelledError("stopped before the start");
    FT_RETURN_IF_ERROR(StartRank(rank, shared_memory), "start rank ", rank);
  }
  return absl::OkStatus();
}

absl::Status AttemptRunner::StartRank(int rank, const UniqueFd& shared_memory) {
  const std::string workspace = JoinPath(dir_, absl::StrCat("rank-", rank));
  FT_RETURN_IF_ERROR(MakeDirs(workspace, 0700));
  v1::ToRank message;
  v1::RankStart& start = *message.mutable_start();
  start = start_;
  start.set_rank(rank);
  start.set_workspace(workspace);
  start.set_has_shared_memory(shared_memory.is_open());
  if (host_.snapshots != nullptr) {
    const absl::StatusOr<SnapshotStore::Place> place =
        host_.snapshots->PlaceFor(job_id(), rank,
                                  static_cast<int>(local_ranks_.size()));
    if (place.ok()) {
      start.set_snapshot_ring(place->ring);
      start.set_snapshot_bytes(place->bytes);
    } else {
      Warn(absl::StrCat("no local snapshots: ", place.status().message()));
    }
  }

  Pass(Failpoint::kSpawnBegins);
  std::optional<SpawnedRank> process;
  if (host_.warm_ranks != nullptr) process = host_.warm_ranks->Take();
  if (!process.has_value()) {
    FT_ASSIGN_OR_RETURN(
        process, host_.spawner->Spawn(host_.config->train_program, workspace,
                                      /*stands_by=*/false));
  }
  Pass(Failpoint::kSpawned);
  auto link = std::make_unique<RankLink>(
      rank, *std::move(process), JoinPath(workspace, "rank.log"),
      RankLink::Callbacks{
          .on_message =
              [this](int from, const v1::FromRank& said) {
                OnMessage(from, said);
              },
          .on_line =
              [this](int from, const std::string& text) {
                v1::LogLine line;
                line.set_rank(from);
                line.set_epoch(epoch());
                line.set_text(text);
                Stamp(*line.mutable_at());
                host_.log(line);
              },
          .on_full_log = [this] { host_.reserve->Release(); },
          .on_end = [this](const RankEnding& end) { OnRankEnd(end); }});
  if (shared_memory.is_open()) {
    link->SendWithFd(message, shared_memory.get());
  } else {
    link->Send(message);
  }
  absl::MutexLock lock(&mutex_);
  heard_at_ = absl::Now();
  RankLink& started = *(links_[rank] = std::move(link));
  // The order may have come while this rank was being started.
  if (yield_deadline_ != absl::InfiniteFuture()) {
    v1::ToRank yield;
    yield.mutable_yield();
    started.Send(yield);
  }
  return absl::OkStatus();
}

void AttemptRunner::SendToAll(const v1::ToRank& message) {
  absl::MutexLock lock(&mutex_);
  for (auto& [rank, link] : links_) link->Send(message);
}

void AttemptRunner::KillAll() {
  absl::MutexLock lock(&mutex_);
  for (auto& [rank, link] : links_) link->Kill();
}

void AttemptRunner::OpenBarrier() {
  {
    absl::MutexLock lock(&mutex_);
    if (begun_) return;
    begun_ = true;
    heard_at_ = absl::Now();
    if (state_ == v1::ATTEMPT_STATE_STARTING) {
      state_ = v1::ATTEMPT_STATE_RUNNING;
    }
  }
  v1::ToRank message;
  message.mutable_begin();
  SendToAll(message);
  Pass(Failpoint::kBarrierOpened);
}

void AttemptRunner::Yield(absl::Duration grace) {
  {
    absl::MutexLock lock(&mutex_);
    if (yield_deadline_ != absl::InfiniteFuture()) return;
    yield_deadline_ = absl::Now() + grace;
    state_ = v1::ATTEMPT_STATE_DRAINING;
  }
  v1::ToRank message;
  message.mutable_yield();
  SendToAll(message);
}

void AttemptRunner::Stop(bool is_fenced) {
  checkpoints_->Stop();
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  fenced_ |= is_fenced;
  // Killed, not asked: what is worth keeping was committed by rename.
  for (auto& [rank, link] : links_) link->Kill();
}

void AttemptRunner::Publish(const std::string& artifact_name) {
  absl::MutexLock lock(&mutex_);
  if (!publish_.has_value()) publish_ = artifact_name;
}

void AttemptRunner::OnRendezvous(const v1::RendezvousReply& reply) {
  v1::ToRank message;
  message.mutable_rendezvous_reply()->set_key(reply.key());
  message.mutable_rendezvous_reply()->set_value(reply.value());
  absl::MutexLock lock(&mutex_);
  for (const int rank : asked_[reply.key()]) {
    const auto link = links_.find(rank);
    if (link != links_.end()) link->second->Send(message);
  }
  asked_.erase(reply.key());
}

v1::ConnectRequest AttemptRunner::Question(int rank,
                                           const std::string& key) const {
  v1::ConnectRequest request;
  v1::RendezvousGet& get = *request.mutable_rendezvous_get();
  get.set_job_id(job_id());
  get.set_epoch(epoch());
  get.set_rank(rank);
  get.set_key(key);
  return request;
}

std::vector<v1::ConnectRequest> AttemptRunner::OpenQuestions() const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::ConnectRequest> questions;
  for (const auto& [key, ranks] : asked_) {
    for (const int rank : ranks) questions.push_back(Question(rank, key));
  }
  return questions;
}

void AttemptRunner::OnMessage(int rank, const v1::FromRank& message) {
  {
    absl::MutexLock lock(&mutex_);
    heard_at_ = absl::Now();
  }
  switch (message.message_case()) {
    case v1::FromRank::kRendezvousSet: {
      v1::ConnectRequest request;
      v1::RendezvousSet& set = *request.mutable_rendezvous_set();
      set.set_job_id(job_id());
      set.set_epoch(epoch());
      set.set_rank(rank);
      set.set_key(message.rendezvous_set().key());
      set.set_value(message.rendezvous_set().value());
      host_.send(request);
      return;
    }
    case v1::FromRank::kRendezvousGet: {
      const std::string& key = message.rendezvous_get().key();
      {
        absl::MutexLock lock(&mutex_);
        asked_[key].insert(rank);
      }
      return host_.send(Question(rank, key));
    }
    case v1::FromRank::kReady: {
      v1::AttemptUpdate update = NewUpdate();
      update.mutable_rank_ready()->set_rank(rank);
      host_.update(update);
      Pass(Failpoint::kReadyTold);
      return;
    }
    case v1::FromRank::kStep: {
      {
        absl::MutexLock lock(&mutex_);
        step_ = message.step().step();
        longest_step_seconds_ =
            std::max(longest_step_seconds_, message.step().seconds());
      }
      host_.step(message.step());
      if (message.step().has_eval_loss()) {
        v1::Event event;
        event.set_kind(v1::EVENT_KIND_EVALUATED);
        event.set_message(absl::StrCat("validation loss ",
                                       message.step().eval_loss(),
                                       " after step ", message.step().step()));
        (*event.mutable_fields())["step"] = absl::StrCat(message.step().step());
        (*event.mutable_fields())["eval_loss"] =
            absl::StrCat(message.step().eval_loss());
        host_.event(event, &message.step());
      }
      return;
    }
    case v1::FromRank::kCheckpointFiles: {
      Pass(Failpoint::kCheckpointHandedOver);
      checkpoints_->Add(rank, message.checkpoint_files());
      return;
    }
    case v1::FromRank::kExportFiles: {
      absl::MutexLock lock(&mutex_);
      export_ = message.export_files();
      return;
    }
    case v1::FromRank::kEvent:
      if (IsAboutSpace(message.event())) {
        return OnSpaceOfRank(rank, message.event());
      }
      return host_.event(message.event(), nullptr);
    case v1::FromRank::kSnapshotSealed:  // The ring itself is asked.
    case v1::FromRank::kExit:
    case v1::FromRank::MESSAGE_NOT_SET:
      return;
  }
}

void AttemptRunner::OnRankEnd(RankEnding ending) {
  if (ending.end.signal == SIGKILL && !ending.was_killed) {
    ending.oom_kills = host_.take_oom_kills();
  }
  Log(ending.is_success() ? LogSeverity::kInfo : LogSeverity::kWarn, "worker",
      "rank ended",
      {{"job", job_id()},
       {"epoch", epoch()},
       {"rank", ending.rank},
       {"exit_code", ending.end.exit_code},
       {"signal", ending.end.signal}});
  Pass(Failpoint::kRankGone);
  absl::MutexLock lock(&mutex_);
  endings_.push_back(ending);
}

void AttemptRunner::WaitForRanks() {
  while (true) {
    bool kill = false;
    {
      absl::MutexLock lock(&mutex_);
      const auto changed = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return endings_.size() == local_ranks_.size() || stopping_ ||
               std::any_of(endings_.begin(), endings_.end(),
                           [](const RankEnding& ending) {
                             return !ending.is_success();
                           });
      };
      mutex_.AwaitWithTimeout(absl::Condition(&changed), absl::Seconds(1));
      if (endings_.size() == local_ranks_.size()) return;
      const absl::Duration quiet = absl::Now() - heard_at_;
      const bool speaks_steps =
          std::count(local_ranks_.begin(), local_ranks_.end(), 0) > 0;
      if (begun_ && speaks_steps &&
          quiet > std::max(kLeastHang,
                           absl::Seconds(kHangSteps * longest_step_seconds_))) {
        hung_ = true;
      }
      kill = changed() || hung_ || absl::Now() > yield_deadline_;
    }
    {
      absl::MutexLock lock(&space_mutex_);
      TellSpace("the worker's disk is full, its reserve is in use");
    }
    if (kill) KillAll();
    if (kill) {
      // All of them now end; each is waited for.
      absl::MutexLock lock(&mutex_);
      const auto all = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return endings_.size() == local_ranks_.size();
      };
      mutex_.AwaitWithTimeout(absl::Condition(&all), absl::Seconds(1));
    }
  }
}

void AttemptRunner::End() {
  // The next attempt goes on from no step whose point is not stored.
  host_.flush();
  std::vector<RankEnding> endings;
  bool stopping, hung;
  {
    absl::MutexLock lock(&mutex_);
    endings = endings_;
    stopping = stopping_;
    hung = hung_;
  }
  if (stopping) {
    return SayEnded(EndedBy(v1::ATTEMPT_CAUSE_STOPPED, absl::OkStatus()));
  }
  for (const RankEnding& ending : endings) {
    if (ending.is_success()) continue;
    v1::AttemptEnded ended = ReportOf(ending);
    if (hung) {
      ended.set_cause(v1::ATTEMPT_CAUSE_RANK_HANG);
      ended.set_message("the ranks said nothing for too long");
    }
    return SayEnded(std::move(ended));
  }

  // What was handed over is stored before anything else is said.
  checkpoints_->AwaitIdle();
  if (endings[0].last_words->yielded()) {
    v1::AttemptEnded ended;
    ended.set_cause(v1::ATTEMPT_CAUSE_YIELDED);
    return SayEnded(std::move(ended));
  }
  // The job ends soon after: its last steps and lines are there first.
  while (!host_.flush() && !Stopping()) {
  }
  Pass(Failpoint::kRanksDone);
  v1::AttemptUpdate update = NewUpdate();
  for (const int rank : local_ranks_)
    update.mutable_ranks_done()->add_ranks(rank);
  host_.update(update);

  // Until the coordinator orders the publication, or drops the epoch because
  // another worker did it.
  {
    absl::MutexLock lock(&mutex_);
    const auto decided = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return publish_.has_value() || stopping_;
    };
    mutex_.Await(absl::Condition(&decided));
    if (stopping_ && !publish_.has_value()) {
      if (fenced_) return;
      stopping = true;
    }
  }
  if (stopping) {
    return SayEnded(EndedBy(v1::ATTEMPT_CAUSE_STOPPED, absl::OkStatus()));
  }
  while (true) {
    const absl::Status status = PublishExport();
    NoteSpace(status);
    if (status.ok() || IsStale(status) || Stopping()) return;
    if (!IsPassing(status)) {
      return SayEnded(EndedBy(v1::ATTEMPT_CAUSE_RANK_EXIT, status));
    }
    StopsWithin(kUploadPause);
  }
}

std::unique_ptr<CheckpointUploader> AttemptRunner::NewUploader() {
  CheckpointUploader::Options options{.dir = JoinPath(dir_, "uploads")};
  for (absl::Duration* wait :
       {&options.poll, &options.shard_timeout, &options.pause}) {
    *wait = host_.config->Scaled(*wait);
  }
  return std::make_unique<CheckpointUploader>(
      std::move(options),
      CheckpointUploader::Host{
          .upload =
              [this](const std::string& path, const std::string& sha256) {
                return host_.transfer->UploadFile(path, sha256, Writer());
              },
          .find_missing =
              [this](const std::vector<std::string>& sha256) {
                return host_.transfer->FindMissing(sha256);
              },
          .commit =
              [this](const v1::Manifest& manifest) {
                return CommitCheckpoint(manifest);
              },
          .is_passing = IsPassing,
          .note = [this](const absl::Status& status) { NoteSpace(status); },
          .give_up =
              [this](int64_t step, const absl::Status& why) {
                if (IsStale(why) || Stopping()) return;
                // The ranks go on; the next checkpoint is another try.
                Warn(absl::StrCat("checkpoint of step ", step,
                                  " was not stored: ", why.message()));
              },
      });
}

absl::Status AttemptRunner::CommitCheckpoint(v1::Manifest manifest) {
  manifest.set_kind(v1::ARTIFACT_KIND_CHECKPOINT);
  manifest.set_job_id(job_id());
  manifest.set_epoch(epoch());
  const std::string bytes = SerializeManifest(manifest);
  FT_RETURN_IF_ERROR(host_.transfer->UploadBytes(bytes, Writer()), "manifest");
  Pass(Failpoint::kManifestUploaded);
  v1::CommitArtifactRequest commit;
  commit.set_manifest_sha256(Sha256Hex(bytes));
  commit.set_job_id(job_id());
  commit.set_epoch(epoch());
  commit.set_request_id(MakeRequestId());
  // No later attempt takes the steps up to this one again: what was said of
  // them is there first.
  if (!host_.flush()) {
    return absl::UnavailableError("the coordinator takes no reports");
  }
  FT_RETURN_IF_ERROR(host_.transfer->Commit(commit).status());
  Pass(Failpoint::kCheckpointCommitted);
  return absl::OkStatus();
}

absl::Status AttemptRunner::PublishExport() {
  Pass(Failpoint::kPublishBegins);
  v1::ExportFiles files;
  std::string name;
  {
    absl::MutexLock lock(&mutex_);
    if (!export_.has_value()) {
      return absl::InternalError("rank 0 exported nothing");
    }
    files = *export_;
    name = *publish_;
  }
  v1::Manifest manifest;
  manifest.set_kind(order_.spec().adaptation().has_lora()
                        ? v1::ARTIFACT_KIND_ADAPTER
                        : v1::ARTIFACT_KIND_MODEL);
  manifest.set_job_id(job_id());
  manifest.set_epoch(epoch());
  manifest.set_step(files.step());
  for (const v1::LocalFile& file : files.files()) {
    FT_RETURN_IF_ERROR(
        host_.transfer->UploadFile(JoinPath(files.dir(), file.path()),
                                   file.sha256(), Writer()),
        file.path());
    v1::FileEntry* entry = manifest.add_files();
    entry->set_path(file.path());
    entry->set_bytes(file.bytes());
    entry->set_sha256(file.sha256());
  }
  const std::string bytes = SerializeManifest(manifest);
  FT_RETURN_IF_ERROR(host_.transfer->UploadBytes(bytes, Writer()), "manifest");
  v1::CommitArtifactRequest commit;
  commit.set_name(name);
  commit.set_manifest_sha256(Sha256Hex(bytes));
  commit.set_job_id(job_id());
  commit.set_epoch(epoch());
  commit.set_request_id(absl::StrCat("publish-", epoch()));
  Pass(Failpoint::kExportUploaded);
  FT_RETURN_IF_ERROR(host_.transfer->Commit(commit).status());
  Pass(Failpoint::kPublished);
  return absl::OkStatus();
}

}  // namespace ft
