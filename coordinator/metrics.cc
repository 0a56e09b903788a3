// SPDX-License-Identifier: Apache-2.0

#include "coordinator/metrics.h"

#include "common/version.h"
#include "coordinator/effect_router.h"
#include "coordinator/job_state.h"

namespace ft {
namespace {

constexpr v1::JobState kLiveStates[] = {
    v1::JOB_STATE_QUEUED,     v1::JOB_STATE_STARTING,   v1::JOB_STATE_RUNNING,
    v1::JOB_STATE_YIELDING,   v1::JOB_STATE_RECOVERING, v1::JOB_STATE_HELD,
    v1::JOB_STATE_FINALIZING, v1::JOB_STATE_CANCELLING};

constexpr v1::WorkerState kWorkerStates[] = {
    v1::WORKER_STATE_JOINING,     v1::WORKER_STATE_READY,
    v1::WORKER_STATE_SUSPECT,     v1::WORKER_STATE_DRAINING,
    v1::WORKER_STATE_QUARANTINED, v1::WORKER_STATE_LOST};

constexpr const char* kWaitingKinds[] = {
    "NO_WORKER", "NO_MODEL", "NOT_ENOUGH_FREE", "NEVER_FITS", "BACKOFF"};

std::string WorkerStateName(v1::WorkerState state) {
  return v1::WorkerState_Name(state).substr(sizeof("WORKER_STATE_") - 1);
}

}  // namespace

CoordinatorMetrics::CoordinatorMetrics() {
  registry_.Set("ft_build_info", "The program that runs; always 1.", 1,
                {{"program", "ft-coordinator"},
                 {"version", std::string(Version())},
                 {"revision", std::string(Revision())}});
  // Counters that alerts look at are there from the start.
  registry_.Count("ft_coordinator_illegal_transitions_total",
                  "Events that a job's state does not allow.", {}, 0);
  registry_.Count("ft_coordinator_artifact_resumes_total",
                  "Uploads that went on after a break.", {}, 0);
  registry_.Count("ft_coordinator_artifact_verify_failures_total",
                  "Bytes that did not have the digest they should.", {}, 0);
}

void CoordinatorMetrics::Observe(const Observation& what) {
  using Kind = Observation::Kind;
  switch (what.kind) {
    case Kind::kTransition:
      registry_.Count("ft_coordinator_job_transitions_total",
                      "Changes of jobs' states.",
                      {{"from", what.a}, {"to", what.b}});
      return;
    case Kind::kIllegal:
      registry_.Count("ft_coordinator_illegal_transitions_total",
                      "Events that a job's state does not allow.");
      return;
    case Kind::kAttemptEnded:
      registry_.Count("ft_coordinator_attempts_total",
                      "Attempts that ended, by cause.", {{"cause", what.a}});
      return;
    case Kind::kFenced:
      registry_.Count("ft_coordinator_fenced_messages_total",
                      "Messages of attempts that no longer act.",
                      {{"kind", what.a}});
      return;
    case Kind::kPlaced:
      registry_.Count("ft_coordinator_placements_total",
                      "Gangs that were given slots.", {{"result", "placed"}});
      return;
    case Kind::kQueueWait:
      registry_.Observe("ft_coordinator_queue_wait_seconds",
                        "From submission to the first placement.", what.value,
                        SecondsBuckets(), {{"queue", what.a}});
      return;
    case Kind::kFinished:
      registry_.Count("ft_coordinator_jobs_finished_total",
                      "Jobs that ended, by outcome.", {{"outcome", what.a}});
      return;
  }
}

void CoordinatorMetrics::Committed(absl::Duration took) {
  registry_.Observe("ft_coordinator_commit_seconds",
                    "Time of one transaction of the store.",
                    absl::ToDoubleSeconds(took), SecondsBuckets());
}

void CoordinatorMetrics::RpcDone(absl::string_view method,
                                 absl::string_view code, absl::Duration took) {
  registry_.Observe(
      "ft_coordinator_rpc_seconds", "Time of unary calls, by method and code.",
      absl::ToDoubleSeconds(took), SecondsBuckets(),
      {{"method", std::string(method)}, {"code", std::string(code)}});
}

void CoordinatorMetrics::AuthDenied(absl::string_view reason) {
  registry_.Count("ft_coordinator_auth_denied_total",
                  "Calls that were refused before they were looked at.",
                  {{"reason", std::string(reason)}});
}

void CoordinatorMetrics::ArtifactBytes(absl::string_view direction,
                                       int64_t bytes) {
  registry_.Count("ft_coordinator_artifact_bytes_total",
                  "Payload of artifacts, by direction.",
                  {{"direction", std::string(direction)}},
                  static_cast<double>(bytes));
}

void CoordinatorMetrics::ArtifactResumed() {
  registry_.Count("ft_coordinator_artifact_resumes_total",
                  "Uploads that went on after a break.");
}

void CoordinatorMetrics::ArtifactVerifyFailed() {
  registry_.Count("ft_coordinator_artifact_verify_failures_total",
                  "Bytes that did not have the digest they should.");
}

void CoordinatorMetrics::Step(const std::string& job_id,
                              const v1::StepMetrics& point) {
  const MetricLabels job = {{"job", job_id}};
  if (point.has_eval_loss()) {
    registry_.Set("ft_train_eval_loss", "Newest validation loss.",
                  point.eval_loss(), job);
    return;
  }
  registry_.Set("ft_train_step", "Newest optimizer step.",
                static_cast<double>(point.step()), job);
  registry_.Set("ft_train_loss", "Mean loss over the targets of the step.",
                point.loss(), job);
  registry_.Set("ft_train_gradient_norm", "Global norm before clipping.",
                point.grad_norm(), job);
  registry_.Set("ft_train_learning_rate", "Learning rate of the step.",
                point.learning_rate(), job);
  registry_.Set("ft_train_progress_ratio", "Steps done of all steps.",
                point.total_steps() == 0
                    ? 0
                    : static_cast<double>(point.step()) /
                          static_cast<double>(point.total_steps()),
                job);
}

void CoordinatorMetrics::JobOver(const std::string& job_id) {
  for (const char* name :
       {"ft_train_eval_loss", "ft_train_step", "ft_train_loss",
        "ft_train_gradient_norm", "ft_train_learning_rate",
        "ft_train_progress_ratio"}) {
    registry_.RemoveGauge(name, {{"job", job_id}});
  }
}

std::string CoordinatorMetrics::Text(const EffectRouter& views,
                                     int64_t store_free_bytes) {
  const auto jobs = views.CountJobs();
  for (const v1::JobState state : kLiveStates) {
    double count = 0;
    for (const auto& [key, number] : jobs) {
      if (key.first == state) count += number;
    }
    registry_.Set(
        "ft_coordinator_jobs", "Jobs that live, by state.", count,
        {{"state", std::string(ShortName(state))}, {"queue", "default"}});
  }
  const auto waiting = views.CountWaiting();
  for (const char* kind : kWaitingKinds) {
    const auto entry = waiting.find(kind);
    registry_.Set("ft_coordinator_waiting_jobs", "Why jobs wait.",
                  entry == waiting.end() ? 0 : entry->second,
                  {{"reason", kind}});
  }
  std::map<v1::WorkerState, double> workers;
  double slots = 0;
  double leased = 0;
  for (const v1::WorkerInfo& worker : views.Workers()) {
    ++workers[worker.state()];
    if (worker.state() == v1::WORKER_STATE_LOST) continue;
    slots += worker.inventory().slots_size();
    leased += worker.running_size();
  }
  for (const v1::WorkerState state : kWorkerStates) {
    registry_.Set("ft_coordinator_workers", "Workers by state.", workers[state],
                  {{"state", WorkerStateName(state)}});
  }
  registry_.Set("ft_coordinator_slots", "Slots of attached workers, by state.",
                slots - leased, {{"state", "free"}});
  registry_.Set("ft_coordinator_slots", "Slots of attached workers, by state.",
                leased, {{"state", "leased"}});
  registry_.Set("ft_coordinator_store_free_bytes",
                "Bytes that may still be written where the store lies.",
                static_cast<double>(store_free_bytes));
  return registry_.Text();
}

}  // namespace ft
