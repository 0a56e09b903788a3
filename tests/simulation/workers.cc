// SPDX-License-Identifier: Apache-2.0
//
// The model workers: what worker/daemon and worker/attempt_runner promise,
// without processes. Ranks step; the bytes of a step depend on the job and the
// step alone.

#include <algorithm>
#include <csignal>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/digest.h"
#include "tests/simulation/world.h"

namespace ft::testing {
namespace {

constexpr absl::Duration kHeartbeat = absl::Seconds(1);

int64_t StepsOf(const v1::JobSpec& spec) { return spec.schedule().steps(); }

// The step that crashes wherever it is taken; 0: none.
int64_t PoisonOf(const v1::JobSpec& spec) {
  absl::string_view name = spec.name();
  int64_t step = 0;
  if (!absl::ConsumePrefix(&name, "poison-")) return 0;
  return absl::SimpleAtoi(name, &step) ? step : 0;
}

}  // namespace

void World::StartWorker(ModelWorker& worker) {
  if (worker.alive) return;
  worker.alive = true;
  worker.hung = false;
  worker.draining = false;
  worker.attempts.clear();
  worker.asked.clear();
  const int life = ++worker.life;
  Note(absl::StrCat(worker.id, "#", worker.number, " starts"));
  Attach(worker);
  In(kHeartbeat, [this, number = worker.number, life] { Beat(number, life); });
}

void World::KillWorker(ModelWorker& worker) {
  if (!worker.alive) return;
  Note(absl::StrCat(worker.id, "#", worker.number, " is killed"));
  worker.alive = false;
  ++worker.life;
  worker.attempts.clear();
  const uint64_t session = std::exchange(worker.session, 0);
  worker_of_.erase(session);
  if (session == 0 || Chance(0.1)) return;
  In(Between(absl::Milliseconds(1), absl::Milliseconds(50)),
     [this, session] { Post({.what = DetachCommand{session}}); });
}

void World::ReattachSoon(ModelWorker& worker) {
  worker.session = 0;
  worker.in_touch_since = absl::InfiniteFuture();
  const int life = worker.life;
  const int number = worker.number;
  In(Between(absl::Milliseconds(20), absl::Seconds(2)), [this, number, life] {
    ModelWorker& there = *workers_[number];
    if (there.alive && there.life == life && there.session == 0) Attach(there);
  });
}

void World::Attach(ModelWorker& worker) {
  if (core_ == nullptr || worker.up.blocked || worker.down.blocked) {
    return ReattachSoon(worker);
  }
  worker.session = ++last_session_;
  Note(absl::StrCat(worker.id, "#", worker.number, " attaches"));
  worker.in_touch_since = absl::InfiniteFuture();
  worker_of_[worker.session] = worker.number;
  v1::ConnectRequest message;
  v1::Attach& attach = *message.mutable_attach();
  attach.set_worker_id(worker.id);
  attach.set_instance_id(absl::StrCat(worker.number, "-", worker.life));
  attach.mutable_inventory()->set_isa_class(worker.isa);
  for (int i = 0; i < worker.slots; ++i) {
    attach.mutable_inventory()->add_slots()->set_index(i);
  }
  attach.add_models()->set_name("tiny");
  attach.mutable_models(0)->set_digest("d1");
  for (const auto& [epoch, attempt] : worker.attempts) {
    v1::AttachedAttempt& held = *attach.add_attempts();
    held.set_job_id(attempt.order.job_id());
    held.set_epoch(epoch);
    held.set_state(attempt.over      ? v1::ATTEMPT_STATE_ENDED
                   : attempt.done    ? v1::ATTEMPT_STATE_DRAINING
                   : attempt.running ? v1::ATTEMPT_STATE_RUNNING
                                     : v1::ATTEMPT_STATE_STARTING);
  }
  Say(worker, std::move(message));
}

void World::Beat(int number, int life) {
  ModelWorker& worker = *workers_[number];
  if (!worker.alive || worker.life != life) return;
  In(kHeartbeat, [this, number, life] { Beat(number, life); });
  if (worker.hung || worker.session == 0) return;
  v1::ConnectRequest message;
  v1::Heartbeat& beat = *message.mutable_heartbeat();
  beat.set_seq(++worker.beats);
  std::vector<uint64_t>& asked = worker.asked[worker.beats];
  for (const auto& [epoch, attempt] : worker.attempts) {
    beat.add_epochs(epoch);
    asked.push_back(epoch);
  }
  Say(worker, std::move(message));
}

// --- Orders ------------------------------------------------------------------

void World::Obey(ModelWorker& worker, const v1::ConnectResponse& order) {
  const auto find = [&](uint64_t epoch) {
    const auto entry = worker.attempts.find(epoch);
    return entry == worker.attempts.end() ? nullptr : &entry->second;
  };
  const int number = worker.number;
  const int life = worker.life;
  switch (order.message_case()) {
    case v1::ConnectResponse::kAttached:
      return OnAttached(worker, order.attached());
    case v1::ConnectResponse::kHeartbeatReply:
      return OnHeartbeatReply(worker, order.heartbeat_reply());
    case v1::ConnectResponse::kStartAttempt:
      return StartAttempt(worker, order.start_attempt());
    case v1::ConnectResponse::kOpenBarrier: {
      const uint64_t epoch = order.open_barrier().epoch();
      ModelWorker::Attempt* attempt = find(epoch);
      if (attempt == nullptr || attempt->running || attempt->over) return;
      attempt->running = true;
      return In(Between(absl::Milliseconds(100), absl::Seconds(1)),
                [this, number, life, epoch] { Step(number, life, epoch); });
    }
    case v1::ConnectResponse::kYield: {
      const uint64_t epoch = order.yield().epoch();
      return In(Between(absl::Milliseconds(100), absl::Seconds(2)),
                [this, number, life, epoch] {
                  ModelWorker::Attempt* held = Find(number, life, epoch);
                  if (held == nullptr || held->done) return;
                  if (held->running && held->publishes) {
                    StoreCheckpoint(*workers_[number], *held);
                  }
                  EndAttempt(*workers_[number], epoch,
                             v1::ATTEMPT_CAUSE_YIELDED);
                });
    }
    case v1::ConnectResponse::kStop:
      if (storming_ && Chance(0.02)) return;  // A rank that cannot be killed.
      return EndAttempt(worker, order.stop().epoch(),
                        v1::ATTEMPT_CAUSE_STOPPED);
    case v1::ConnectResponse::kFence:
      worker.attempts.erase(order.fence().epoch());
      return;
    case v1::ConnectResponse::kPublish: {
      ModelWorker::Attempt* attempt = find(order.publish().epoch());
      if (attempt == nullptr || attempt->over ||
          attempt->publish_as.has_value()) {
        return;
      }
      attempt->publish_as = order.publish().artifact_name();
      return Publish(number, life, order.publish().epoch());
    }
    case v1::ConnectResponse::kEventAck: {
      ModelWorker::Attempt* attempt = find(order.event_ack().epoch());
      if (attempt == nullptr) return;
      std::erase_if(attempt->unacked, [&](const v1::WorkerEvent& event) {
        return event.seq() <= order.event_ack().seq();
      });
      return;
    }
    default:
      return;
  }
}

void World::OnAttached(ModelWorker& worker, const v1::Attached& attached) {
  worker.in_touch_since = now_;
  for (auto& [epoch, attempt] : worker.attempts) {
    for (const v1::AttemptUpdate& update : attempt.updates) {
      v1::ConnectRequest message;
      *message.mutable_attempt_update() = update;
      Say(worker, std::move(message));
    }
    const auto durable = attached.durable_event_seq().find(epoch);
    for (const v1::WorkerEvent& event : attempt.unacked) {
      if (durable != attached.durable_event_seq().end() &&
          event.seq() <= durable->second) {
        continue;
      }
      v1::ConnectRequest message;
      *message.mutable_event() = event;
      Say(worker, std::move(message));
    }
  }
  if (!worker.draining) return;
  v1::ConnectRequest message;
  message.mutable_drain();
  Say(worker, std::move(message));
}

void World::OnHeartbeatReply(ModelWorker& worker,
                             const v1::HeartbeatReply& reply) {
  const auto question = worker.asked.find(reply.seq());
  if (question == worker.asked.end()) return;
  for (const uint64_t epoch : question->second) {
    if (std::ranges::count(reply.valid_epochs(), epoch) == 0) {
      worker.attempts.erase(epoch);
    }
  }
  worker.asked.erase(question);
}

void World::StartAttempt(ModelWorker& worker, const v1::StartAttempt& order) {
  const auto known = worker.attempts.find(order.epoch());
  if (known != worker.attempts.end()) {
    for (const v1::AttemptUpdate& update : known->second.updates) {
      v1::ConnectRequest message;
      *message.mutable_attempt_update() = update;
      Say(worker, std::move(message));
    }
    return;
  }
  ModelWorker::Attempt& attempt = worker.attempts[order.epoch()];
  attempt.order = order;
  attempt.step = order.source_step();
  for (const v1::RankPlacement& rank : order.placement().ranks()) {
    if (rank.worker_id() != worker.id) continue;
    attempt.ranks.push_back(rank.rank());
    attempt.publishes |= rank.rank() == 0;
  }
  v1::AttemptUpdate accepted;
  accepted.mutable_accepted();
  SayUpdate(worker, attempt, accepted);
  In(Between(absl::Milliseconds(200), absl::Seconds(3)) * worker.slowness,
     [this, number = worker.number, life = worker.life, epoch = order.epoch()] {
       GetReady(number, life, epoch);
     });
}

// --- Ranks -------------------------------------------------------------------

ModelWorker::Attempt* World::Find(int number, int life, uint64_t epoch) {
  ModelWorker& worker = *workers_[number];
  if (!worker.alive || worker.life != life) return nullptr;
  const auto entry = worker.attempts.find(epoch);
  if (entry == worker.attempts.end() || entry->second.over) return nullptr;
  return &entry->second;
}

void World::GetReady(int number, int life, uint64_t epoch) {
  ModelWorker::Attempt* attempt = Find(number, life, epoch);
  if (attempt == nullptr) return;
  ModelWorker& worker = *workers_[number];
  if (storming_ && Chance(0.01)) {
    return EndAttempt(worker, epoch, v1::ATTEMPT_CAUSE_INVALID_ARGUMENT);
  }
  for (const int32_t rank : attempt->ranks) {
    rules_.RankIsReady(epoch, rank);
    v1::AttemptUpdate update;
    update.mutable_rank_ready()->set_rank(rank);
    SayUpdate(worker, *attempt, update);
  }
}

void World::Step(int number, int life, uint64_t epoch) {
  ModelWorker::Attempt* attempt = Find(number, life, epoch);
  if (attempt == nullptr || attempt->done) return;
  ModelWorker& worker = *workers_[number];
  const absl::Duration pace =
      Between(absl::Milliseconds(300), absl::Milliseconds(700)) *
      worker.slowness;
  In(pace, [this, number, life, epoch] { Step(number, life, epoch); });
  if (worker.hung) return;
  const v1::StartAttempt& order = attempt->order;
  const std::string& job_id = order.job_id();
  if (Chance(worker.crash_share) ||
      (attempt->publishes && attempt->step + 1 == PoisonOf(order.spec()) &&
       poison_[job_id] >= 0)) {
    ++report_.seen["crash"];
    return EndAttempt(worker, epoch, v1::ATTEMPT_CAUSE_RANK_SIGNAL, SIGSEGV);
  }
  ++attempt->step;
  if (attempt->publishes) {
    if (!Chance(0.05)) {
      const int64_t step = attempt->step;
      In(Between(absl::Milliseconds(1), absl::Milliseconds(40)),
         [this, job_id, epoch, step] {
           ProgressCommand progress{.job_id = job_id, .epoch = epoch};
           progress.progress.emplace().set_step(step);
           Post({.what = std::move(progress)});
         });
    }
    if (attempt->step % 3 == 0) StoreCheckpoint(worker, *attempt);
    if (Chance(0.1)) SayEvent(worker, *attempt);
  }
  if (attempt->step < StepsOf(order.spec())) return;
  attempt->done = true;
  rules_.MemberIsDone(epoch, worker.id);
  v1::AttemptUpdate update;
  for (const int32_t rank : attempt->ranks) {
    update.mutable_ranks_done()->add_ranks(rank);
  }
  SayUpdate(worker, *attempt, update);
}

CommitArtifactCommand World::Artifact(const ModelWorker::Attempt& attempt,
                                      v1::ArtifactKind kind, int64_t step) {
  const v1::StartAttempt& order = attempt.order;
  CommitArtifactCommand commit;
  v1::Manifest& manifest = commit.manifest;
  manifest.set_kind(kind);
  manifest.set_job_id(order.job_id());
  manifest.set_epoch(order.epoch());
  manifest.set_step(step);
  manifest.add_parents(absl::StrCat(order.epoch()));  // For the rules.
  v1::FileEntry& file = *manifest.add_files();
  file.set_path("weights");
  file.set_bytes(7);
  file.set_sha256(absl::StrCat(order.job_id(), "@", step));
  commit.commit.set_job_id(order.job_id());
  commit.commit.set_epoch(order.epoch());
  commit.commit.set_manifest_sha256(
      absl::StrCat(order.job_id(), "@", step, "@", order.epoch(), "@", kind));
  commit.request.key = {
      .principal = "worker",
      .request_id = absl::StrCat(order.epoch(), "-", kind, "-", step),
      .method = Method::kCommitArtifact,
      .body_sha256 = commit.commit.manifest_sha256()};
  return commit;
}

// Sent again once, as the uploader does after UNAVAILABLE; a late one may come
// when a newer step is durable, or another epoch acts.
void World::StoreCheckpoint(ModelWorker&, ModelWorker::Attempt& attempt) {
  const CommitArtifactCommand commit =
      Artifact(attempt, v1::ARTIFACT_KIND_CHECKPOINT, attempt.step);
  const double loss = storming_ ? 0.05 : 0;
  In(Between(absl::ZeroDuration(), absl::Seconds(Chance(0.1) ? 20 : 1)),
     [this, commit, loss] { Call(commit, loss, [](const Reply&) {}); });
  if (Chance(0.2)) {
    In(Between(absl::ZeroDuration(), absl::Seconds(5)),
       [this, commit, loss] { Call(commit, loss, [](const Reply&) {}); });
  }
}

void World::Publish(int number, int life, uint64_t epoch) {
  ModelWorker::Attempt* attempt = Find(number, life, epoch);
  if (attempt == nullptr || !attempt->publish_as.has_value()) return;
  CommitArtifactCommand commit =
      Artifact(*attempt, v1::ARTIFACT_KIND_ADAPTER, attempt->step);
  commit.commit.set_name(*attempt->publish_as);
  Call(std::move(commit), storming_ ? 0.1 : 0,
       [this, number, life, epoch](const Reply& reply) {
         const absl::StatusCode code = reply.status.code();
         ModelWorker::Attempt* held = Find(number, life, epoch);
         if (held == nullptr || code == absl::StatusCode::kAborted) return;
         if (reply.status.ok()) held->publish_as.reset();
       });
  In(absl::Seconds(2),
     [this, number, life, epoch] { Publish(number, life, epoch); });
}

void World::SayEvent(ModelWorker& worker, ModelWorker::Attempt& attempt) {
  v1::WorkerEvent event;
  event.set_job_id(attempt.order.job_id());
  event.set_epoch(attempt.order.epoch());
  event.set_seq(++attempt.event_seq);
  event.mutable_event()->set_kind(v1::EVENT_KIND_EVALUATED);
  (*event.mutable_event()->mutable_fields())["sim"] =
      absl::StrCat(worker.number, "/", worker.life, "/", attempt.order.epoch(),
                   "/", event.seq());
  attempt.unacked.push_back(event);
  v1::ConnectRequest message;
  *message.mutable_event() = std::move(event);
  Say(worker, std::move(message));
}

void World::EndAttempt(ModelWorker& worker, uint64_t epoch,
                       v1::AttemptCause cause, int signal, int status_code) {
  const auto entry = worker.attempts.find(epoch);
  if (entry == worker.attempts.end() || entry->second.over) return;
  ModelWorker::Attempt& attempt = entry->second;
  attempt.over = true;
  rules_.MemberEnds(epoch, cause, signal);
  v1::AttemptUpdate update;
  v1::AttemptEnded& ended = *update.mutable_ended();
  ended.set_cause(cause);
  ended.set_signal(signal);
  ended.set_status_code(status_code);
  ended.set_last_step(attempt.step);
  ended.set_message(absl::StrCat("rank of ", worker.id, " ended"));
  if (signal != 0) ended.add_log_tail("the last line");
  SayUpdate(worker, attempt, update);
  if (cause == v1::ATTEMPT_CAUSE_STOPPED ||
      cause == v1::ATTEMPT_CAUSE_YIELDED || status_code != 0) {
    return;
  }
  // The other members may see it before the coordinator tells them.
  for (const auto& other : workers_) {
    if (other->number == worker.number || !Chance(0.5)) continue;
    In(Between(absl::Milliseconds(5), absl::Seconds(1)),
       [this, number = other->number, life = other->life, epoch] {
         const ModelWorker::Attempt* held = Find(number, life, epoch);
         if (held == nullptr || !held->running || held->done) return;
         EndAttempt(*workers_[number], epoch, v1::ATTEMPT_CAUSE_RANK_EXIT, 0,
                    static_cast<int>(absl::StatusCode::kAborted));
       });
  }
}

void World::SayUpdate(ModelWorker& worker, ModelWorker::Attempt& attempt,
                      v1::AttemptUpdate update) {
  update.set_job_id(attempt.order.job_id());
  update.set_epoch(attempt.order.epoch());
  attempt.updates.push_back(update);
  v1::ConnectRequest message;
  *message.mutable_attempt_update() = std::move(update);
  Say(worker, std::move(message));
}

// A worker that has been in touch for a while runs nothing that was replaced.
void World::CheckStaleRanks() {
  constexpr absl::Duration kLong = absl::Seconds(15);
  if (now_ - paused_until_ < kLong || core_ == nullptr) return;
  for (const auto& worker : workers_) {
    if (!worker->alive || worker->hung || worker->session == 0 ||
        now_ - worker->in_touch_since < kLong) {
      continue;
    }
    for (const auto& [epoch, attempt] : worker->attempts) {
      if (attempt.over || now_ - rules_.EndedSince(epoch) < kLong) continue;
      rules_.Fail(absl::StrCat(worker->id, " still runs epoch ", epoch,
                               ", which ended long ago"));
    }
  }
}

}  // namespace ft::testing
