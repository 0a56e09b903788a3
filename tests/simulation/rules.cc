// SPDX-License-Identifier: Apache-2.0

#include "tests/simulation/rules.h"

#include <algorithm>
#include <deque>
#include <tuple>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "coordinator/attempt_facts.h"
#include "coordinator/job_state.h"
#include "coordinator/placement.h"
#include "coordinator/proto_time.h"

namespace ft::testing {
namespace {

bool WantsAPlace(v1::JobState state) {
  return state == v1::JOB_STATE_QUEUED || state == v1::JOB_STATE_RECOVERING;
}

bool IsOfCoordinator(v1::AttemptCause cause) {
  return cause == v1::ATTEMPT_CAUSE_COMPLETED ||
         cause == v1::ATTEMPT_CAUSE_STOPPED ||
         cause == v1::ATTEMPT_CAUSE_START_TIMEOUT ||
         cause == v1::ATTEMPT_CAUSE_WORKER_CRASH ||
         cause == v1::ATTEMPT_CAUSE_WORKER_LOST;
}

}  // namespace

void Rules::OnCommit(std::span<const Decision> batch, absl::Time wall) {
  wall_ = wall;
  for (const Decision& decision : batch) {
    epochs_before_ = highest_epoch_;
    for (const Record& record : decision.records) {
      std::visit([this](const auto& what) { On(what); }, record);
      if (!violation_.empty()) return;
    }
  }
}

void Rules::AfterCommit(std::span<const Decision> batch) {
  std::set<std::string> touched;
  for (const Decision& decision : batch) {
    for (const Record& record : decision.records) {
      if (const auto* put = std::get_if<PutJob>(&record)) {
        touched.insert(put->job.job_id());
      } else if (const auto* event = std::get_if<AppendEvent>(&record)) {
        touched.insert(event->event.job_id());
      }
    }
  }
  for (const std::string& job_id : touched) CheckRow(job_id);
}

void Rules::CheckRow(const std::string& job_id) {
  const auto timeline = jobs_.find(job_id);
  const absl::StatusOr<v1::Job> row = store_.GetJob(job_id);
  if (!row.ok() || timeline == jobs_.end()) {
    if (row.ok() != (timeline != jobs_.end())) {
      Fail(absl::StrCat(job_id, row.ok() ? " has a row and no events"
                                         : " has events and no row"));
    }
    return;
  }
  const std::string difference = timeline->second.Differs(*row);
  if (!difference.empty()) Fail(absl::StrCat(job_id, ": ", difference));
}

void Rules::CheckAll() {
  const std::vector<v1::Job> rows =
      store_.ListJobs({.page_size = 1 << 20}).value();
  for (const v1::Job& row : rows) {
    const std::string& job_id = row.job_id();
    // From the log alone, as a reader of it would.
    Timeline replayed;
    const std::vector<v1::Event> events =
        store_.ListEvents(job_id, 0, 1 << 20).value();
    for (const v1::Event& event : events) {
      const std::string wrong = replayed.Apply(event);
      if (!wrong.empty()) Fail(absl::StrCat(job_id, ": ", wrong));
    }
    const std::string difference = replayed.Differs(row);
    if (!difference.empty()) Fail(absl::StrCat(job_id, ": ", difference));
    std::set<std::string> stored;
    const std::vector<v1::Artifact> artifacts =
        store_.ListArtifacts(job_id, "", 1 << 20).value();
    for (const v1::Artifact& artifact : artifacts) {
      stored.insert(artifact.name());
    }
    if (stored != replayed.artifacts()) {
      Fail(absl::StrCat(job_id, " has ", stored.size(), " artifacts, ",
                        replayed.artifacts().size(), " by its events"));
    }
    const bool has_succeeded = row.status().state() == v1::JOB_STATE_SUCCEEDED;
    if (published_[job_id] != (has_succeeded ? 1 : 0)) {
      Fail(absl::StrCat(job_id, " was published ", published_[job_id],
                        " times"));
    }
    if (replayed.ends() != (IsTerminal(row.status().state()) ? 1 : 0)) {
      Fail(absl::StrCat(job_id, " ended ", replayed.ends(), " times"));
    }
  }
  for (const std::string& job_id : promised_) {
    if (!store_.GetJob(job_id).ok()) {
      Fail(absl::StrCat(job_id, " was acknowledged and is gone"));
    }
  }
}

// --- Records -----------------------------------------------------------------

void Rules::On(const PutJob& put) {
  const std::string& job_id = put.job.job_id();
  const v1::JobStatus& status = put.job.status();
  const auto before = states_.find(job_id);
  // A person may take back a failure, of which nothing was published.
  const bool is_resumed =
      before != states_.end() && before->second == v1::JOB_STATE_FAILED &&
      status.state() == v1::JOB_STATE_QUEUED && published_[job_id] == 0;
  if (before != states_.end() && IsTerminal(before->second) &&
      before->second != status.state() && !is_resumed) {
    Fail(absl::StrCat(job_id, " was ", ShortName(before->second), " and is ",
                      ShortName(status.state())));
  }
  states_[job_id] = status.state();
  const int32_t most = put.job.spec().retry().max_without_progress();
  max_without_progress_[job_id] = most > 0 ? most : 3;
  if (status.checkpoint_step() < durable_step_[job_id]) {
    Fail(absl::StrCat("the durable step of ", job_id, " went back from ",
                      durable_step_[job_id], " to ", status.checkpoint_step()));
  }
  durable_step_[job_id] = status.checkpoint_step();
  if (IsTerminal(status.state()) && live_epoch_[job_id] != 0) {
    // The attempt's row comes with the job's; see OnEndedAttempt.
    const v1::Attempt& newest = *status.attempts().rbegin();
    if (newest.state() != v1::ATTEMPT_STATE_ENDED) {
      Fail(absl::StrCat(job_id, " has ended and epoch ", newest.epoch(),
                        " lives"));
    }
  }
}

void Rules::On(const EraseJob& erase) {
  if (!IsTerminal(states_[erase.job_id])) {
    Fail(absl::StrCat(erase.job_id, " was deleted while it was ",
                      ShortName(states_[erase.job_id])));
  }
  const auto timeline = jobs_.find(erase.job_id);
  if (timeline == jobs_.end()) return Fail("an unknown job was deleted");
  erased_[erase.job_id] = std::move(timeline->second);
  jobs_.erase(timeline);
  states_.erase(erase.job_id);
  promised_.erase(erase.job_id);
}

void Rules::On(const PutAttempt& put) {
  const v1::Attempt& attempt = put.attempt;
  uint64_t& live = live_epoch_[put.job_id];
  if (!attempts_.contains(attempt.epoch())) {
    OnNewAttempt(put);
    live = attempt.epoch();
  }
  if (attempt.state() != v1::ATTEMPT_STATE_ENDED) {
    if (live != attempt.epoch()) {
      Fail(absl::StrCat(put.job_id, ": epoch ", attempt.epoch(),
                        " lives, and so does ", live));
    }
    return;
  }
  if (live == attempt.epoch()) live = 0;
  OnEndedAttempt(attempt);
}

void Rules::OnNewAttempt(const PutAttempt& put) {
  const v1::Attempt& attempt = put.attempt;
  // One decision may place several jobs, and writes their rows in any order.
  if (attempt.epoch() <= epochs_before_) {
    Fail(absl::StrCat(put.job_id, " got epoch ", attempt.epoch(), " after ",
                      epochs_before_));
  }
  highest_epoch_ = std::max(highest_epoch_, attempt.epoch());
  if (const uint64_t live = live_epoch_[put.job_id]; live != 0) {
    Fail(absl::StrCat(put.job_id, " has two live attempts, ", live, " and ",
                      attempt.epoch()));
  }
  for (const v1::RankPlacement& rank : attempt.placement().ranks()) {
    if (quarantined_.contains(rank.worker_id())) {
      Fail(absl::StrCat(put.job_id, " was placed at ", rank.worker_id(),
                        ", which is in quarantine"));
    }
  }
  attempts_[attempt.epoch()] = {.job_id = put.job_id,
                                .placement = attempt.placement()};
}

void Rules::OnEndedAttempt(const v1::Attempt& attempt) {
  KnownAttempt& known = attempts_[attempt.epoch()];
  if (known.ended < absl::InfiniteFuture()) return;
  known.ended = now_;
  // A row says only what somebody has said.
  if (!IsOfCoordinator(attempt.cause()) &&
      !said_ends_[attempt.epoch()].contains(
          {attempt.cause(), attempt.signal()})) {
    Fail(absl::StrCat("epoch ", attempt.epoch(), " ended by ",
                      ShortName(attempt.cause()), ", signal ", attempt.signal(),
                      ", which no worker has said"));
  }
}

void Rules::On(const AppendEvent& append) {
  const v1::Event& event = append.event;
  const std::string& job_id = event.job_id();
  Timeline& timeline = jobs_[job_id];
  const v1::JobState from = timeline.status().state();
  if (const std::string wrong = timeline.Apply(event); !wrong.empty()) {
    return Fail(absl::StrCat(job_id, ": ", wrong));
  }
  if (const auto sim = event.fields().find("sim");
      sim != event.fields().end()) {
    if (!worker_events_.insert(sim->second).second) {
      Fail(absl::StrCat(job_id, ": the worker's event ", sim->second,
                        " is there twice"));
    }
  }
  if (event.kind() == v1::EVENT_KIND_CONDITION) OnQuarantine(event);
  const v1::JobState to = timeline.status().state();
  const bool was_trying = from == v1::JOB_STATE_STARTING ||
                          from == v1::JOB_STATE_RUNNING ||
                          from == v1::JOB_STATE_FINALIZING;
  if (event.kind() == v1::EVENT_KIND_STATE_CHANGED && was_trying &&
      (to == v1::JOB_STATE_HELD || to == v1::JOB_STATE_RECOVERING ||
       to == v1::JOB_STATE_FAILED)) {
    const std::string wrong = timeline.JudgesOtherwise(
        to, timeline.status().reason(), max_without_progress_[job_id]);
    if (!wrong.empty()) Fail(absl::StrCat(job_id, ": ", wrong));
  }
}

// The job crashed at the worker within the hour, and had a later attempt
// without it.
bool Rules::Accuses(const Timeline& job, const std::string& worker_id) const {
  const auto& attempts = job.attempts();
  for (size_t i = 0; i + 1 < attempts.size(); ++i) {
    const v1::Attempt& row = attempts[i].row;
    if (row.failed_worker_id() != worker_id || !IsCrashRow(row) ||
        wall_ - FromProto(row.ended()) > absl::Hours(1)) {
      continue;
    }
    for (size_t j = i + 1; j < attempts.size(); ++j) {
      const auto& ranks = attempts[j].row.placement().ranks();
      if (std::ranges::none_of(ranks, [&](const auto& rank) {
            return rank.worker_id() == worker_id;
          })) {
        return true;
      }
    }
  }
  return false;
}

void Rules::OnQuarantine(const v1::Event& event) {
  const std::string& worker_id = event.fields().at("worker");
  if (!quarantined_.insert(worker_id).second) {
    Fail(absl::StrCat(worker_id, " is put into quarantine twice"));
  }
  int accusers = 0;
  for (const auto* jobs : {&jobs_, &erased_}) {
    for (const auto& [job_id, timeline] : *jobs) {
      accusers += Accuses(timeline, worker_id);
    }
  }
  if (accusers < 3) {
    Fail(absl::StrCat(worker_id, " is put into quarantine, and ", accusers,
                      " jobs crashed there and went on elsewhere"));
  }
}

void Rules::On(const PutReply& put) {
  const RequestKey& key = put.reply.key;
  if (!replies_.insert({key.principal, key.request_id}).second) {
    Fail(absl::StrCat("request ", key.request_id, " had its effect twice"));
  }
}

void Rules::On(const PutLastEpoch& put) {
  if (put.epoch <= last_epoch_) {
    Fail(absl::StrCat("the last epoch went from ", last_epoch_, " to ",
                      put.epoch));
  }
  last_epoch_ = put.epoch;
}

void Rules::On(const PutArtifact& put) {
  const v1::Manifest& manifest = put.row.artifact.manifest();
  const std::string& job_id = manifest.job_id();
  if (job_id.empty()) return;
  // The model workers write into the manifest who they are.
  uint64_t writer = 0;
  if (manifest.parents_size() == 0 ||
      !absl::SimpleAtoi(manifest.parents(0), &writer) ||
      writer != live_epoch_[job_id]) {
    Fail(absl::StrCat("epoch ", writer, " wrote ", put.row.artifact.name(),
                      " while ", live_epoch_[job_id], " acted for ", job_id));
  }
  if (manifest.kind() == v1::ARTIFACT_KIND_ADAPTER &&
      ++published_[job_id] > 1) {
    Fail(absl::StrCat(job_id, " was published twice"));
  }
}

void Rules::On(const PutWorker& put) {
  if (quarantined_.contains(put.worker_id) && !put.marks.has_quarantine() &&
      !put.marks.has_released()) {
    Fail(absl::StrCat(put.worker_id, " left quarantine by itself"));
  }
}

void Rules::On(const AppendAudit& append) {
  if (append.method == "ReleaseWorker") {
    quarantined_.erase(append.resource.substr(sizeof("workers/") - 1));
  }
}

// --- Effects -----------------------------------------------------------------

void Rules::OnRelease(const Effect& effect) {
  if (const auto* reply = std::get_if<Reply>(&effect)) {
    v1::Job job;
    if (reply->status.ok() && !reply->response.empty() &&
        job.ParseFromString(reply->response) &&
        absl::StartsWith(job.job_id(), "job-") &&
        !jobs_.contains(job.job_id()) && !erased_.contains(job.job_id())) {
      Fail(absl::StrCat(job.job_id(), " is answered and not stored"));
    }
    return;
  }
  const auto* order = std::get_if<ToWorker>(&effect);
  if (order == nullptr) return;
  if (order->message.has_start_attempt()) {
    const uint64_t epoch = order->message.start_attempt().epoch();
    if (!attempts_.contains(epoch)) {
      Fail(absl::StrCat("epoch ", epoch, " is ordered and not stored"));
    }
  } else if (order->message.has_open_barrier()) {
    const uint64_t epoch = order->message.open_barrier().epoch();
    for (const auto& rank : attempts_[epoch].placement.ranks()) {
      if (!ready_[epoch].contains(rank.rank())) {
        Fail(absl::StrCat("the barrier of epoch ", epoch, " opens, and rank ",
                          rank.rank(), " is not ready"));
      }
    }
  } else if (order->message.has_publish()) {
    const uint64_t epoch = order->message.publish().epoch();
    for (const auto& rank : attempts_[epoch].placement.ranks()) {
      if (!done_[epoch].contains(rank.worker_id())) {
        Fail(absl::StrCat("epoch ", epoch, " shall publish, and ",
                          rank.worker_id(), " is not done"));
      }
    }
  }
}

absl::Time Rules::EndedSince(uint64_t epoch) const {
  const auto known = attempts_.find(epoch);
  return known == attempts_.end() ? absl::InfiniteFuture()
                                  : known->second.ended;
}

// --- No room is wasted -------------------------------------------------------

void Rules::OnIdle(const Fleet& fleet) {
  std::deque<v1::Job> rows;  // The demands' texts.
  std::vector<GangDemand> demands;
  // By slot the newest epoch there, and the job that it is held for; none: it
  // is in use.
  std::map<std::pair<std::string, int32_t>, std::pair<uint64_t, std::string>>
      taken;
  for (const auto& [job_id, state] : states_) {
    if (IsTerminal(state)) continue;
    const v1::Job& row = rows.emplace_back(store_.GetJob(job_id).value());
    const v1::JobStatus& status = row.status();
    if (WantsAPlace(state)) {
      // In a back-off whose end only the core's clock knows.
      if (status.has_not_before()) return;
      GangDemand demand{.job_id = job_id,
                        .priority = row.spec().priority(),
                        .submit_seq = row.submit_seq(),
                        .ranks = row.spec().resources().ranks().max(),
                        .model = row.spec().model().base(),
                        .model_digest = row.spec().model().digest(),
                        .one_isa_class = true};
      if (!status.attempts().empty()) {
        demand.isa_class = status.attempts(0).isa_class();
      }
      demands.push_back(std::move(demand));
    }
    if (status.attempts().empty()) continue;
    const v1::Attempt& newest = *status.attempts().rbegin();
    const bool is_live = newest.state() != v1::ATTEMPT_STATE_ENDED &&
                         state != v1::JOB_STATE_FINALIZING;
    if (!is_live && state != v1::JOB_STATE_RECOVERING) continue;
    for (const v1::RankPlacement& rank : newest.placement().ranks()) {
      // A slot that two jobs could hold was given up by the earlier one.
      auto& use = taken[{rank.worker_id(), rank.slot()}];
      if (newest.epoch() < use.first) continue;
      use = {newest.epoch(), is_live ? "" : job_id};
    }
  }
  std::vector<WorkerOffer> offers;
  for (const auto& [worker_id, worker] : fleet.workers()) {
    if (worker.state != v1::WORKER_STATE_READY) continue;
    WorkerOffer& offer = offers.emplace_back();
    offer.worker_id = worker_id;
    offer.isa_class = worker.inventory.isa_class();
    for (const v1::ModelInfo& model : worker.models) {
      offer.models[model.name()] = model.digest();
    }
    for (const v1::Slot& slot : worker.inventory.slots()) {
      auto& slot_offer = offer.slots.emplace_back();
      slot_offer.slot = slot.index();
      const auto use = taken.find({worker_id, slot.index()});
      if (use == taken.end()) continue;
      slot_offer.held_for = use->second.second;
      slot_offer.is_free = !slot_offer.held_for.empty();
    }
  }
  std::ranges::sort(demands, [](const GangDemand& a, const GangDemand& b) {
    return std::make_tuple(-a.priority, a.submit_seq) <
           std::make_tuple(-b.priority, b.submit_seq);
  });
  for (const GangDemand& demand : demands) {
    if (!WouldFitEmpty(demand, offers)) continue;  // It blocks nobody.
    if (const std::optional<Gang> gang = FindGang(demand, offers)) {
      Fail(absl::StrCat(demand.job_id, " waits, and there is room for its ",
                        demand.ranks, " ranks: ", TextOf(gang->placement)));
    }
    return;  // What is free is kept for it.
  }
}

}  // namespace ft::testing
